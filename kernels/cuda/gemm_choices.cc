#include "kernels/cuda/gemm_choices.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "fmt/format.h"
#include "kernels/cuda/graph_cache.h"

namespace lorad::kernels::cuda {
namespace {

constexpr char kFirstLine[] = "lorad gemm choices 1";

uint64_t ChecksumOf(const std::string& text) {
  return HashBytes(std::as_bytes(std::span(text.data(), text.size())));
}

// "n k rows full accumulate bias", and the eight words of the algorithm in hex.
std::string LineOf(const GemmShape& shape, const LtAlgorithm& choice) {
  std::string line = fmt::format("{} {} {} {:d} {:d} {:d}", shape.n, shape.k, shape.rows,
                                 shape.full, shape.accumulate, shape.bias);
  for (const uint64_t word : choice.data) line += fmt::format(" {:x}", word);
  return line + "\n";
}

bool Parse(const std::string& line, GemmShape* shape, LtAlgorithm* choice) {
  std::istringstream in(line);
  in >> shape->n >> shape->k >> shape->rows >> shape->full >> shape->accumulate >> shape->bias;
  for (uint64_t& word : choice->data) in >> std::hex >> word;
  return !in.fail() && (in >> std::ws).eof();
}

}  // namespace

int GemmRowsBucket(int rows) {
  int bucket = 64;
  while (bucket < rows) {
    if (bucket / 2 * 3 >= rows) return bucket / 2 * 3;
    bucket *= 2;
  }
  return bucket;
}

GemmChoices::GemmChoices(std::string path, std::string owner)
    : path_(std::move(path)), owner_(std::move(owner)) {
  if (!path_.empty()) Load();
}

const LtAlgorithm* GemmChoices::Find(const GemmShape& shape) const {
  const auto found = choices_.find(shape);
  return found == choices_.end() ? nullptr : &found->second;
}

std::string GemmChoices::Text() const {
  std::string text = fmt::format("{}\n{}\n", kFirstLine, owner_);
  for (const auto& [shape, choice] : choices_) text += LineOf(shape, choice);
  return text + fmt::format("end {:x}\n", ChecksumOf(text));
}

void GemmChoices::Load() {
  std::ifstream file(path_, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t end = text.rfind("end ");
  if (end == std::string::npos) return;
  const std::string body = text.substr(0, end);
  if (text.substr(end) != fmt::format("end {:x}\n", ChecksumOf(body))) return;
  std::istringstream lines(body);
  std::string line;
  if (!std::getline(lines, line) || line != kFirstLine) return;
  if (!std::getline(lines, line) || line != owner_) return;
  std::map<GemmShape, LtAlgorithm> read;
  while (std::getline(lines, line)) {
    GemmShape shape;
    LtAlgorithm choice;
    if (!Parse(line, &shape, &choice)) return;
    read[shape] = choice;
  }
  choices_ = std::move(read);
}

absl::Status GemmChoices::Add(const GemmShape& shape, const LtAlgorithm& choice) {
  choices_[shape] = choice;
  if (path_.empty()) return absl::OkStatus();
  const std::string other = fmt::format("{}.{}", path_, getpid());
  std::ofstream file(other, std::ios::binary | std::ios::trunc);
  file << Text();
  file.close();
  if (file.fail() || std::rename(other.c_str(), path_.c_str()) != 0) {
    std::remove(other.c_str());
    return absl::UnavailableError(fmt::format("cannot write {}", path_));
  }
  return absl::OkStatus();
}

int FastestOf(std::span<const std::vector<float>> milliseconds) {
  int fastest = -1;
  float best = 0;
  for (size_t i = 0; i < milliseconds.size(); ++i) {
    std::vector<float> times = milliseconds[i];
    if (times.empty()) continue;
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    if (fastest < 0 || *middle < best) {
      fastest = static_cast<int>(i);
      best = *middle;
    }
  }
  return fastest;
}

}  // namespace lorad::kernels::cuda
