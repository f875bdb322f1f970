#include "server/objective_option.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "memory/base/status_macros.h"

namespace lorad {
namespace {

constexpr double kDayS = 24 * 60 * 60;

absl::StatusOr<Priority> ParseClass(std::string_view text) {
  for (int i = 0; i < kPriorities; ++i) {
    const auto priority = static_cast<Priority>(i);
    if (text == NameOf(priority)) return priority;
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is not one of interactive, standard, batch", text));
}

absl::Status ParseWord(std::string_view word, Objective* objective) {
  if (word == "refuse") {
    objective->refuse = true;
    return absl::OkStatus();
  }
  const size_t equals = std::min(word.find('='), word.size());
  const std::string_view key = word.substr(0, equals);
  const std::string_view value = word.substr(std::min(equals + 1, word.size()));
  if (key == "ttft") {
    LORAD_ASSIGN_OR_RETURN(objective->first_token, ParseDuration(value));
    return absl::OkStatus();
  }
  if (key == "itl") {
    LORAD_ASSIGN_OR_RETURN(objective->inter_token, ParseDuration(value));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is not one of ttft=TIME, itl=TIME, refuse", word));
}

}  // namespace

absl::StatusOr<Duration> ParseDuration(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  const double seconds = unit == "ms" ? value / 1000 : value;
  // Written so that NaN is refused too.
  const bool within = seconds > 0 && seconds <= kDayS;
  if (error != std::errc() || (unit != "ms" && unit != "s") || !within) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is no time above 0, as 50ms or 1.5s", text));
  }
  return FromSeconds(seconds);
}

absl::StatusOr<std::pair<Priority, Objective>> ParseObjective(std::string_view text) {
  std::string_view rest = text;
  const auto next = [&rest] {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view word = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    return word;
  };
  std::pair<Priority, Objective> out;
  LORAD_ASSIGN_OR_RETURN(out.first, ParseClass(next()));
  while (!rest.empty()) LORAD_RETURN_IF_ERROR(ParseWord(next(), &out.second));
  if (out.second == Objective()) {
    return absl::InvalidArgumentError("says nothing: give ttft=TIME, itl=TIME or both");
  }
  if (out.second.refuse && out.second.first_token == Duration::zero()) {
    return absl::InvalidArgumentError("refuse needs a ttft");
  }
  return out;
}

}  // namespace lorad
