#include "kernels/adapter_layout.h"

#include <algorithm>

#include "memory/base/check.h"

namespace lorad::kernels {

AdapterLayout ListModules(std::span<const LowRankFactors> factors, uint32_t sites) {
  AdapterLayout layout;
  for (const LowRankFactors& f : factors) {
    LORAD_CHECK(f.site < sites && f.a.rows >= 1 && f.a.rows == f.b.cols);
    layout.modules.push_back({.site = f.site,
                              .rank = static_cast<uint32_t>(f.a.rows),
                              .d_in = static_cast<uint32_t>(f.a.cols),
                              .out_begin = f.out_begin,
                              .out_cols = static_cast<uint32_t>(f.b.rows),
                              .scale = f.scale,
                              .a = {},
                              .b = {}});
  }
  std::ranges::sort(layout.modules, [](const AdapterModule& x, const AdapterModule& y) {
    return x.site != y.site ? x.site < y.site : x.out_begin < y.out_begin;
  });
  layout.site_begin.assign(sites + 1, 0);
  for (const AdapterModule& m : layout.modules) ++layout.site_begin[m.site + 1];
  for (uint32_t s = 0; s < sites; ++s) layout.site_begin[s + 1] += layout.site_begin[s];
  return layout;
}

const AdapterModule& ModuleOf(const AdapterLayout& layout, const LowRankFactors& factors) {
  const auto modules = layout.At(factors.site);
  const auto module = std::ranges::find(modules, factors.out_begin, &AdapterModule::out_begin);
  LORAD_CHECK(module != modules.end() && module->rank == factors.a.rows &&
              module->d_in == factors.a.cols && module->out_cols == factors.b.rows);
  return *module;
}

}  // namespace lorad::kernels
