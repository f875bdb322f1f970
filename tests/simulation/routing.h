// Routing: which of several servers gets a request. Affine routing sends an adapter's requests to
// few servers, so that each holds few adapters, without letting any of them drown: rendezvous
// hashing with a bound on the load (the server whose hash with the adapter is highest among those
// that have room), as an endpoint picker in front of real replicas does. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace lorad::sim {

enum class Routing : uint8_t {
  kAffine,
  kLeastLoaded,  // knows of no adapters
  kHashed,       // affine without a bound
};
std::optional<Routing> RoutingByName(std::string_view name);  // affine, least-loaded, hashed

// No server's load may be more than this times the mean, the new request counted.
inline constexpr double kLoadBound = 1.25;

// `unfinished`: requests of each server. `adapter` 0: the base model, which every server has.
// Returns a server's number.  REQUIRES: there is one.
int Route(Routing routing, uint64_t adapter, std::span<const int> unfinished);

}  // namespace lorad::sim
