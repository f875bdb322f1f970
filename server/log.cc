#include "server/log.h"

#include <fmt/format.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace lorad {
namespace {

constexpr size_t kQueueLines = 8192;
constexpr size_t kMaxFieldBytes = 256;

bool g_json = false;  // set once by StartLog

spdlog::level::level_enum SpdLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// The fields of a JSON line after time and level, without the opening brace.
std::string JsonTail(std::string_view event, std::initializer_list<LogField> fields) {
  nlohmann::ordered_json line;
  line["event"] = event;
  for (const LogField& field : fields) {
    line[std::string(field.key)] =
        field.number ? nlohmann::ordered_json::parse(field.text, nullptr, false)
                     : nlohmann::ordered_json(field.text.substr(0, kMaxFieldBytes));
  }
  return line.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace).substr(1);
}

std::string TextLine(std::string_view event, std::initializer_list<LogField> fields) {
  std::string line(event);
  for (const LogField& field : fields) {
    line += fmt::format(" {}={}", field.key, EscapeForLog(field.text));
  }
  return line;
}

}  // namespace

void StartLog(const std::string& level, const std::string& format) {
  g_json = format == "json";
  spdlog::init_thread_pool(kQueueLines, 1);
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  // A full queue drops the oldest lines: a slow terminal must not slow the daemon.
  auto logger = std::make_shared<spdlog::async_logger>(
      "lorad", sink, spdlog::thread_pool(), spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern(g_json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v)"
                             : "%Y-%m-%dT%H:%M:%S.%eZ %^%-5l%$ %v",
                      spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

void StopLog() { spdlog::shutdown(); }

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (logger == nullptr || !logger->should_log(SpdLevel(level))) return;
  logger->log(SpdLevel(level), "{}", g_json ? JsonTail(event, fields) : TextLine(event, fields));
}

std::string EscapeForLog(std::string_view text) {
  std::string out;
  bool quote = text.empty();
  for (char c : text.substr(0, kMaxFieldBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    quote |= c == ' ' || c == '=' || c == '"' || byte < 0x20;
  }
  return quote ? '"' + out + '"' : out;
}

}  // namespace lorad
