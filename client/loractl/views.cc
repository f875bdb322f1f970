#include "client/loractl/views.h"

#include <fmt/format.h>

#include <algorithm>

namespace lorad::loractl {

std::string PoolPicture(const v1::Pool& pool, const Terminal& terminal) {
  const int64_t used_adapter_pages = pool.adapter_pages() - pool.adapter_idle_pages();
  const std::vector<std::pair<std::string_view, Share>> parts = {
      {"keys and values", {pool.kv_pages(), "#", Color::kCyan}},
      {"cached prefixes", {pool.kv_cached_pages(), "+", Color::kBlue}},
      {"adapters in use", {used_adapter_pages, "A", Color::kGreen}},
      {"idle adapters", {pool.adapter_idle_pages(), "a", Color::kYellow}},
      {"free", {pool.free_pages(), ".", Color::kDim}},
  };
  std::vector<Share> shares;
  for (const auto& part : parts) shares.push_back(part.second);
  const int width = std::clamp(terminal.width() - 2, 10, 120);
  std::string out =
      fmt::format("{} pages of {} = {}; {} tokens a page\n[{}]\n", pool.total_pages(),
                  Bytes(pool.page_bytes()), Bytes(pool.total_pages() * pool.page_bytes()),
                  pool.page_tokens(), Bar(terminal, shares, width));
  const double total = std::max<double>(1, static_cast<double>(pool.total_pages()));
  for (const auto& [label, share] : parts) {
    out += fmt::format("  {} {:<16}{:>9} pages {:>11} {:>5.1f} %\n",
                       terminal.Paint(share.color, share.glyph), label, share.amount,
                       Bytes(share.amount * pool.page_bytes()),
                       100.0 * static_cast<double>(share.amount) / total);
  }
  return out;
}

std::string PoolAdapters(const v1::Pool& pool, int rows, const Terminal& terminal) {
  Table table({"ADAPTER", "VERSION", "PAGES", "SIZE", "RUNNING", "LAST USE", ""});
  int64_t widest = 1;
  const int n = std::min(rows, pool.adapters_size());
  for (int i = 0; i < n; ++i) widest = std::max(widest, pool.adapters(i).pages());
  for (int i = 0; i < n; ++i) {
    const v1::PoolAdapter& a = pool.adapters(i);
    const Color color = a.running_requests() > 0 ? Color::kGreen : Color::kYellow;
    const std::string bar(static_cast<size_t>(20 * a.pages() / widest),
                          a.running_requests() > 0 ? 'A' : 'a');
    table.Add({ShortName(a.name()), fmt::format("{}", a.version()), fmt::format("{}", a.pages()),
               Bytes(a.pages() * pool.page_bytes()),
               a.loading() ? "loading" : fmt::format("{}", a.running_requests()),
               Ago(a.last_use_time()), terminal.Paint(color, bar)});
  }
  if (table.empty()) return "no adapters in the pool\n";
  std::string out = table.Text(terminal, {1, 2, 3, 4});
  if (pool.adapter_count() > n) out += fmt::format("... and {} more\n", pool.adapter_count() - n);
  return out;
}

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

  std::string out = fmt::format(
      "up {:.0f} s{}   running {} (on {} adapters)   waiting {}   stored adapters {}\n",
      Seconds(now.uptime()), now.draining() ? terminal.Paint(Color::kYellow, "  DRAINING") : "",
      now.running_requests(), now.running_adapters(), now.waiting_requests(),
      now.stored_adapters());
  out += fmt::format("{}/s: {} tokens made   {} prompt tokens ({} cached)   {} requests done\n",
                     since_start ? "mean since start " : "",
                     rate(now.completion_tokens_total(), from.completion_tokens_total()),
                     rate(now.prompt_tokens_total(), from.prompt_tokens_total()),
                     rate(now.cached_tokens_total(), from.cached_tokens_total()),
                     rate(now.finished_total(), from.finished_total()));
  out += fmt::format("steps: {}/s   {:.2f} ms each   {:.1f} tokens made each   busy {:.0f} %\n",
                     Count(steps / seconds), steps > 0 ? 1000 * step_s / steps : 0.0,
                     steps > 0 ? made / steps : 0.0, std::min(100.0, 100 * step_s / seconds));
  out += fmt::format(
      "since start: {} finished, {} rejected, {} cancelled, {} failed; {} adapter loads, {} "
      "evictions, "
      "{} preemptions\n",
      now.finished_total(), now.rejected_total(), now.cancelled_total(), now.failed_total(),
      now.adapter_loads_total(), now.adapter_evictions_total(), now.preemptions_total());
  return out;
}

}  // namespace lorad::loractl
