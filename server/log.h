// Structured logs: an event and its fields, as text (`event key=value`) or one JSON object a line.
// Never prompts, outputs, keys or weights. Thread-safe; a line costs its caller a queue push, the
// writing is another thread's.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace lorad {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), text(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), text(v) {}
  LogField(std::string_view k, const char* v) : key(k), text(v) {}
  template <typename Number>
  requires std::is_arithmetic_v<Number> LogField(std::string_view k, Number v)
      : key(k), text(std::to_string(v)), number(true) {}

  std::string_view key;
  std::string text;
  bool number = false;
};

// Once, before threads start.
void StartLog(const std::string& level, const std::string& format);
void StopLog();  // writes what is queued
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

// Keeps control characters out of a line and bounds its length. For text; JSON escapes by itself.
std::string EscapeForLog(std::string_view text);

}  // namespace lorad
