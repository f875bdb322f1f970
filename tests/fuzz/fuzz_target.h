// A fuzz target: one translation unit gives these two. `fuzz_main.cc` drives it with mutations of
// the seeds, deterministically, as an ordinary test; built by clang with -fsanitize=fuzzer (and
// without fuzz_main.cc) the same target runs under libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lorad {

// How the target took an input. A run in which all inputs end alike tests nothing, which the driver
// reports as a failure.
enum FuzzVerdict : int { kFuzzRefused = 0, kFuzzAccepted = 1 };

// Valid inputs to start from.
std::vector<std::string> FuzzSeeds();
// Pieces of syntax that mean something in this format; spliced in by the mutator.
std::vector<std::string> FuzzDictionary();

}  // namespace lorad

// Aborts if the code under test breaks a promise. Returns a FuzzVerdict to the driver; libFuzzer
// ignores it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
