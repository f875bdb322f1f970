// GemmChoices: which of a library's algorithms was the fastest for each shape of product, kept in a
// file across starts. A file of another device or another version of the library is not read, nor
// is one that is damaged: the trials are made again.
//
// Thread: one at a time; processes may share the file (the last to write wins).
#pragma once

#include <compare>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/lt_api.h"

namespace lorad::kernels::cuda {

// What an algorithm is chosen by.
struct GemmShape {
  int n = 0;     // outputs
  int k = 0;     // inputs
  int rows = 0;  // GemmRowsBucket of the real ones
  bool full = false;
  bool accumulate = false;
  bool bias = false;
  auto operator<=>(const GemmShape&) const = default;
};

// Rows that share a choice: up to the next of 64, 96, 128, 192, 256, 384, ...
int GemmRowsBucket(int rows);

class GemmChoices {
 public:
  // `owner`: one line that names the device and the library's version. Empty path: nothing is kept.
  GemmChoices(std::string path, std::string owner);

  const LtAlgorithm* Find(const GemmShape& shape) const;
  // Also in the file, atomically. All zeros: whatever the library takes. An error says why it could
  // not be written; the choice holds.
  absl::Status Add(const GemmShape& shape, const LtAlgorithm& choice);
  size_t size() const { return choices_.size(); }

 private:
  void Load();
  std::string Text() const;

  const std::string path_;
  const std::string owner_;
  std::map<GemmShape, LtAlgorithm> choices_;
};

// The index of the candidate with the least median, -1 if there is none; a candidate without times
// has failed.
int FastestOf(std::span<const std::vector<float>> milliseconds);

}  // namespace lorad::kernels::cuda
