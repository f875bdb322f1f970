#include "client/loractl/load_view.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorad::loractl {

std::string Load(const v1::Stats& before, const v1::Stats& now, const Terminal& terminal) {
  const bool since_start = Seconds(now.uptime()) <= Seconds(before.uptime());
  const v1::Stats zero;
  const v1::Stats& from = since_start ? zero : before;
  const double seconds = std::max(1e-3, Seconds(now.uptime()) - Seconds(from.uptime()));
  const auto rate = [&](int64_t a, int64_t b) {
    return Count(static_cast<double>(a - b) / seconds);
  };
  const auto steps = static_cast<double>(now.steps_total() - from.steps_total());
  const double step_s = Seconds(now.step_time_total()) - Seconds(from.step_time_total());
  const double made =
      static_cast<double>(now.completion_tokens_total() - from.completion_tokens_total());
  const auto cached = static_cast<double>(now.cached_tokens_total() - from.cached_tokens_total());
  const auto computed = static_cast<double>(now.prompt_tokens_total() - from.prompt_tokens_total());

  std::string out = fmt::format(
      "up {:.0f} s{}   running {} (on {} adapters)   waiting {}   stored adapters {}\n",
      Seconds(now.uptime()), now.draining() ? terminal.Paint(Color::kYellow, "  DRAINING") : "",
      now.running_requests(), now.running_adapters(), now.waiting_requests(),
      now.stored_adapters());
  out += fmt::format(
      "{}/s: {} tokens made   {} prompt tokens computed, {} cached (hit rate {})   {} requests "
      "done\n",
      since_start ? "mean since start " : "",
      rate(now.completion_tokens_total(), from.completion_tokens_total()),
      Count(computed / seconds), Count(cached / seconds),
      cached + computed > 0 ? fmt::format("{:.0f} %", 100 * cached / (cached + computed)) : "-",
      rate(now.finished_total(), from.finished_total()));
  out += fmt::format("steps: {}/s   {:.2f} ms each   {:.1f} tokens made each   busy {:.0f} %\n",
                     Count(steps / seconds), steps > 0 ? 1000 * step_s / steps : 0.0,
                     steps > 0 ? made / steps : 0.0, std::min(100.0, 100 * step_s / seconds));
  out += fmt::format(
      "since start: {} finished, {} rejected, {} cancelled, {} failed; {} adapter loads, {} "
      "adapter "
      "evictions, {} prefix pages evicted, {} preemptions\n",
      now.finished_total(), now.rejected_total(), now.cancelled_total(), now.failed_total(),
      now.adapter_loads_total(), now.adapter_evictions_total(), now.prefix_evictions_total(),
      now.preemptions_total());
  return out;
}

}  // namespace lorad::loractl
