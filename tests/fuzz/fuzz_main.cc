// Drives a fuzz target for a fixed number of seeded mutations. LORAD_FUZZ_ITERATIONS and
// LORAD_FUZZ_SEED change how many and which. On a crash the offending input is in the file named by
// LORAD_FUZZ_LAST, if that is set.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace lorad {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

// Changes inputs a little: bytes, numbers, and pieces of structure. Lengths that the safetensors
// format puts before its header are repaired half of the time, or hardly any mutation would get
// past them.
class Mutator {
 public:
  Mutator(uint64_t seed, std::vector<std::string> seeds, std::vector<std::string> dictionary)
      : random_(seed), seeds_(std::move(seeds)), dictionary_(std::move(dictionary)) {}

  std::string Next() {
    std::string input = Pick(seeds_);
    const bool framed = HasLengthPrefix(input);
    const size_t changes = 1 + Below(4);
    for (size_t i = 0; i < changes; ++i) Change(input);
    if (framed && Below(2) == 0) RepairLength(input);
    return input;
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  const std::string& Pick(const std::vector<std::string>& from) { return from[Below(from.size())]; }
  size_t Position(const std::string& input) { return Below(input.size() + 1); }

  void Change(std::string& input) {
    static constexpr std::array<void (Mutator::*)(std::string&), 8> kChanges = {
        &Mutator::FlipBit,   &Mutator::SetByte, &Mutator::Erase,  &Mutator::Duplicate,
        &Mutator::NewNumber, &Mutator::Insert,  &Mutator::Splice, &Mutator::Truncate};
    (this->*kChanges[Below(kChanges.size())])(input);
  }

  void FlipBit(std::string& input) {
    if (!input.empty()) input[Below(input.size())] ^= static_cast<char>(1 << Below(8));
  }
  void SetByte(std::string& input) {
    static constexpr char kBytes[] = "\0\xff\x80{}[]\",:-0129eE. \\";
    if (!input.empty()) input[Below(input.size())] = kBytes[Below(sizeof(kBytes) - 1)];
  }
  void Erase(std::string& input) { input.erase(Position(input), 1 + Below(8)); }
  void Duplicate(std::string& input) {
    const std::string piece = input.substr(Position(input), 1 + Below(64));
    input.insert(Position(input), piece);
  }
  void Insert(std::string& input) { input.insert(Position(input), Pick(dictionary_)); }
  void Splice(std::string& input) {
    const std::string& other = Pick(seeds_);
    input = input.substr(0, Position(input)) + other.substr(Below(other.size() + 1));
  }
  void Truncate(std::string& input) {
    if (Below(4) == 0) input.resize(Position(input));
  }
  // Replaces one run of digits by a number at a limit, or by its neighbour.
  void NewNumber(std::string& input) {
    static const std::vector<std::string> kNumbers = {"0",
                                                      "1",
                                                      "-1",
                                                      "2",
                                                      "3",
                                                      "4",
                                                      "8",
                                                      "255",
                                                      "256",
                                                      "257",
                                                      "65536",
                                                      "2147483648",
                                                      "4294967296",
                                                      "9223372036854775807",
                                                      "9223372036854775808",
                                                      "18446744073709551615",
                                                      "18446744073709551616",
                                                      "1e308",
                                                      "1e400",
                                                      "0.5",
                                                      "-0",
                                                      "1e-320"};
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto first = std::find_if(input.begin() + static_cast<ptrdiff_t>(Position(input)),
                                    input.end(), is_digit);
    const auto last = std::find_if_not(first, input.end(), is_digit);
    if (first == last) return;
    std::string number = Pick(kNumbers);
    if (Below(2) == 0 && last - first < 10) {
      number = std::to_string(std::stoll(std::string(first, last)) + (Below(2) == 0 ? 1 : -1));
    }
    input.replace(first, last, number);
  }

  static bool HasLengthPrefix(const std::string& input) {
    return input.size() > 8 && input[0] != '{' && input[8] == '{';
  }
  // Makes the length end at the last brace that closes a header, as far as one can tell.
  static void RepairLength(std::string& input) {
    const size_t end = input.rfind('}');
    if (input.size() < 9 || end == input.npos || end < 8) return;
    const uint64_t length = end + 1 - 8;
    for (size_t i = 0; i < 8; ++i) input[i] = static_cast<char>((length >> (8 * i)) & 0xff);
  }

  std::mt19937_64 random_;
  const std::vector<std::string> seeds_;
  const std::vector<std::string> dictionary_;
};

int Run(const std::string& input) {
  return LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

int Drive() {
  const uint64_t iterations = FromEnvironment("LORAD_FUZZ_ITERATIONS", 100000);
  const uint64_t seed = FromEnvironment("LORAD_FUZZ_SEED", 1);
  const char* last = std::getenv("LORAD_FUZZ_LAST");
  for (const std::string& input : FuzzSeeds()) {
    if (Run(input) != kFuzzAccepted) {
      fmt::print(stderr, "a seed is refused:\n{}\n", input);
      return 1;
    }
  }
  Mutator mutator(seed, FuzzSeeds(), FuzzDictionary());
  std::array<uint64_t, 2> verdicts = {};
  for (uint64_t i = 0; i < iterations; ++i) {
    const std::string input = mutator.Next();
    if (last != nullptr) std::ofstream(last, std::ios::binary) << input;
    ++verdicts[Run(input) == kFuzzAccepted ? 1 : 0];
  }
  fmt::print("{} inputs refused, {} accepted\n", verdicts[0], verdicts[1]);
  const bool telling = iterations < 1000 || (verdicts[0] > 0 && verdicts[1] > 0);
  if (!telling)
    fmt::print(stderr, "every input ended alike: the mutations are too mild or too wild\n");
  return telling ? 0 : 1;
}

}  // namespace
}  // namespace lorad

int main() { return lorad::Drive(); }
