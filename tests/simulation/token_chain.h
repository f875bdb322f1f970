// What a simulated model says. Its state after a token is a hash of the adapter and of all tokens
// up to it (the chain); the next token follows from that alone. So a request's output is known
// beforehand from its prompt, and a page that was shared, freed, copied or overwritten wrongly
// changes it. Pure functions.
#pragma once

#include <cstdint>

#include "memory/adapter_cache.h"
#include "model/sampling.h"

namespace lorad::sim {

inline constexpr int kSimVocab = 32000;
inline constexpr TokenId kSimStop = 0;  // ends an output; no other token is it

constexpr uint64_t Scramble(uint64_t x) {  // the finalizer of splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

constexpr uint64_t ChainStart(AdapterVersionId adapter) { return Scramble(adapter); }
constexpr uint64_t ChainNext(uint64_t chain, TokenId token) {
  return (chain ^ static_cast<uint64_t>(token + 1)) * 0x9E3779B97F4A7C15ull + (chain >> 29);
}
// What follows a chain, unless the output ends there.
constexpr TokenId TokenAfter(uint64_t chain) {
  return 1 + static_cast<TokenId>(Scramble(chain) % (kSimVocab - 1));
}
// Token `i` of a text of which there is one for each key.
constexpr TokenId TextToken(uint64_t key, int i) {
  return 1 + static_cast<TokenId>(Scramble(key * 0xD1B54A32D192ED03ull + static_cast<uint64_t>(i)) %
                                  (kSimVocab - 1));
}

// Which request it is and how many tokens it says goes with its sampling seed.
inline constexpr int kOutputBits = 24;
constexpr uint64_t SeedFor(size_t request, int output_tokens) {
  return (uint64_t{request} << kOutputBits) | static_cast<uint64_t>(output_tokens);
}
constexpr size_t RequestOf(uint64_t seed) { return seed >> kOutputBits; }
constexpr int OutputTokensOf(uint64_t seed) {
  return static_cast<int>(seed & ((uint64_t{1} << kOutputBits) - 1));
}

}  // namespace lorad::sim
