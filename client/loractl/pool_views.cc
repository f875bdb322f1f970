#include "client/loractl/pool_views.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lorad::loractl {
namespace {

struct State {
  std::string_view label;
  Share share;
};

// Every page once. An adapter is shown as loading before pinned before idle before in use.
std::vector<State> States(const v1::Pool& pool) {
  int64_t rest = pool.adapter_pages();
  const auto take = [&rest](int64_t pages) {
    const int64_t taken = std::clamp<int64_t>(pages, 0, rest);
    rest -= taken;
    return taken;
  };
  const int64_t loading = take(pool.adapter_loading_pages());
  const int64_t pinned = take(pool.adapter_pinned_pages());
  const int64_t idle = take(pool.adapter_idle_pages());
  return {
      {"keys and values", {pool.kv_pages(), "#", Color::kCyan}},
      {"cached prefixes", {pool.kv_cached_pages(), "+", Color::kBlue}},
      {"adapters in use", {rest, "A", Color::kGreen}},
      {"idle adapters", {idle, "a", Color::kYellow}},
      {"pinned adapters", {pinned, "P", Color::kMagenta}},
      {"loading adapters", {loading, "L", Color::kRed}},
      {"free", {pool.free_pages(), ".", Color::kDim}},
  };
}

double Percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

std::string More(int64_t all, int64_t shown) {
  return all > shown ? fmt::format("... and {} more\n", all - shown) : "";
}

// "3 of 10", or "3" without a limit.
std::string OfLimit(const std::string& used, bool limited, const std::string& limit) {
  return limited ? fmt::format("{} of {}", used, limit) : used;
}

}  // namespace

std::string PoolPicture(const v1::Pool& pool, const Terminal& terminal) {
  const std::vector<State> states = States(pool);
  std::vector<Share> shares;
  for (const State& state : states) shares.push_back(state.share);
  const int width = std::max(terminal.width() - 2, 10);
  std::string out =
      fmt::format("{} pages of {} = {}; {} tokens a page\n[{}]\n", pool.total_pages(),
                  Bytes(pool.page_bytes()), Bytes(pool.total_pages() * pool.page_bytes()),
                  pool.page_tokens(), Bar(terminal, shares, width));
  for (const auto& [label, share] : states) {
    out += fmt::format("  {} {:<17}{:>9} pages {:>11} {:>5.1f} %\n",
                       terminal.Paint(share.color, share.glyph), label, share.amount,
                       Bytes(share.amount * pool.page_bytes()),
                       Percent(share.amount, pool.total_pages()));
  }
  return out;
}

std::string PoolFacts(const v1::Pool& pool) {
  std::string out;
  const int64_t waste = pool.kv_waste_bytes() + pool.adapter_waste_bytes();
  if (waste > 0) {
    out += fmt::format("  wasted: {} ({:.1f} % of the pool): keys and values {}, adapters {}\n",
                       Bytes(waste), Percent(waste, pool.total_pages() * pool.page_bytes()),
                       Bytes(pool.kv_waste_bytes()), Bytes(pool.adapter_waste_bytes()));
  }
  if (pool.host_capacity_bytes() > 0) {
    const int64_t loads = pool.host_hits_total() + pool.host_misses_total();
    out += fmt::format("  host memory: {} of {}, {} adapters; {:.0f} % of {} loads found theirs\n",
                       Bytes(pool.host_bytes()), Bytes(pool.host_capacity_bytes()),
                       pool.host_adapters(), Percent(pool.host_hits_total(), loads), loads);
  }
  if (pool.seconds_per_prompt_token() > 0 || pool.seconds_per_adapter_page() > 0) {
    out += fmt::format(
        "  learned: {:.3g} ms to compute a prompt token again, {:.3g} ms to load an adapter page\n",
        1000 * pool.seconds_per_prompt_token(), 1000 * pool.seconds_per_adapter_page());
  }
  return out;
}

std::string PoolTenants(const v1::Pool& pool, int rows, const Terminal& terminal) {
  Table table({"TENANT", "KV", "CACHED", "ADAPTERS", "PAGES", "SIZE", "SHARE"});
  const int n = std::min(rows, pool.tenants_size());
  for (int i = 0; i < n; ++i) {
    const v1::PoolTenant& t = pool.tenants(i);
    const int64_t pages = t.kv_pages() + t.kv_cached_pages() + t.adapter_pages();
    table.Add({t.tenant().empty() ? "-" : t.tenant(), fmt::format("{}", t.kv_pages()),
               fmt::format("{}", t.kv_cached_pages()), fmt::format("{}", t.adapter_pages()),
               fmt::format("{}", pages), Bytes(pages * pool.page_bytes()),
               fmt::format("{:.1f} %", Percent(pages, pool.total_pages()))});
  }
  return table.Text(terminal, {1, 2, 3, 4, 5, 6}) + More(pool.tenants_size(), n);
}

std::string PoolAdapters(const v1::Pool& pool, int rows, const Terminal& terminal) {
  constexpr int kBarColumns = 8;  // so that a row fits in 80
  Table table({"ADAPTER", "PAGES", "WASTE", "KV", "CACHED", "PINNED", "RUNNING", "LAST USE", ""});
  int64_t widest = 1;
  const int n = std::min(rows, pool.adapters_size());
  for (int i = 0; i < n; ++i) widest = std::max(widest, pool.adapters(i).pages());
  for (int i = 0; i < n; ++i) {
    const v1::PoolAdapter& a = pool.adapters(i);
    const bool used = a.running_requests() > 0;
    const std::string bar(static_cast<size_t>(kBarColumns * a.pages() / widest), used ? 'A' : 'a');
    table.Add({fmt::format("{}@{}", ShortName(a.name()), a.version()), fmt::format("{}", a.pages()),
               Bytes(a.waste_bytes()), fmt::format("{}", a.kv_pages()),
               fmt::format("{}", a.kv_cached_pages()), a.pinned() ? "yes" : "",
               a.loading() ? "loading" : fmt::format("{}", a.running_requests()),
               Ago(a.last_use_time()), terminal.Paint(used ? Color::kGreen : Color::kYellow, bar)});
  }
  if (table.empty()) return "no adapters in the pool\n";
  return table.Text(terminal, {1, 2, 3, 4, 5, 6}) + More(pool.adapter_count(), n);
}

std::string FitText(const v1::GetFitRequest& request, const v1::Fit& fit,
                    const Terminal& terminal) {
  const bool adapters = request.rank() > 0;
  std::string out;
  if (adapters) {
    const std::vector<std::string> modules(request.target_modules().begin(),
                                           request.target_modules().end());
    out += fmt::format("an adapter of rank {} on {}: {} pages, image {}\n", request.rank(),
                       modules.empty() ? "all modules" : Join(modules, ", "), fit.adapter_pages(),
                       Bytes(fit.adapter_image_bytes()));
  }
  out += request.sequence_tokens() > 0
             ? fmt::format("a sequence of {} tokens: ", request.sequence_tokens())
             : std::string("the longest sequence: ");
  out += fmt::format("{} pages\n\n", fit.sequence_pages());
  Table table(adapters ? std::vector<std::string>{"SO MANY FIT IN", "ADAPTERS", "SEQUENCES"}
                       : std::vector<std::string>{"SO MANY FIT IN", "SEQUENCES"});
  const auto add = [&](std::string where, int64_t adapter_count, int64_t sequence_count) {
    std::vector<std::string> row = {std::move(where)};
    if (adapters) row.push_back(fmt::format("{}", adapter_count));
    row.push_back(fmt::format("{}", sequence_count));
    table.Add(std::move(row));
  };
  add("free pages", fit.adapters_in_free_pages(), fit.sequences_in_free_pages());
  add("available pages", fit.adapters_in_available_pages(), fit.sequences_in_available_pages());
  add("an empty pool", fit.adapters_in_pool(), fit.sequences_in_pool());
  return out + table.Text(terminal, {1, 2});
}

std::string TenantTable(const std::vector<v1::Tenant>& tenants, const Terminal& terminal) {
  Table table({"TENANT", "WEIGHT", "ADAPTERS", "STORED", "DEFAULT ADAPTER"});
  for (const v1::Tenant& t : tenants) {
    table.Add(
        {t.name(), fmt::format("{}", t.weight()),
         OfLimit(fmt::format("{}", t.adapters()), t.max_adapters() > 0,
                 fmt::format("{}", t.max_adapters())),
         OfLimit(Bytes(t.stored_bytes()), t.max_stored_bytes() > 0, Bytes(t.max_stored_bytes())),
         t.default_adapter().empty() ? "-" : ShortName(t.default_adapter())});
  }
  return table.Text(terminal, {1, 2, 3});
}

}  // namespace lorad::loractl
