#include "tests/simulation/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/simulation/token_chain.h"

namespace lorad::sim {

std::optional<Routing> RoutingByName(std::string_view name) {
  if (name == "affine") return Routing::kAffine;
  if (name == "least-loaded") return Routing::kLeastLoaded;
  if (name == "hashed") return Routing::kHashed;
  return std::nullopt;
}

int Route(Routing routing, uint64_t adapter, std::span<const int> unfinished) {
  const auto least =
      static_cast<int>(std::min_element(unfinished.begin(), unfinished.end()) - unfinished.begin());
  if (routing == Routing::kLeastLoaded || adapter == 0) return least;
  const int all = std::accumulate(unfinished.begin(), unfinished.end(), 1);
  const double mean = static_cast<double>(all) / static_cast<double>(unfinished.size());
  const auto most = static_cast<int>(std::ceil(kLoadBound * mean));
  int best = least;
  uint64_t best_hash = 0;
  for (size_t i = 0; i < unfinished.size(); ++i) {
    if (routing == Routing::kAffine && unfinished[i] + 1 > most) continue;
    const uint64_t hash = Scramble(Scramble(adapter) ^ (i + 1));
    if (hash < best_hash) continue;
    best_hash = hash;
    best = static_cast<int>(i);
  }
  return best;
}

}  // namespace lorad::sim
