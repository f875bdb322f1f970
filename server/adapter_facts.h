// AdapterFacts: what the server has found out about the files of an adapter's version, kept with
// the version so that a server that starts with thousands of adapters reads no weights. They hold
// for one base model, backend and page size, which their text names by a fingerprint.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model_config.h"

namespace lorad {

struct AdapterFacts {
  uint64_t image_bytes = 0;
  uint32_t pages = 0;  // that the image takes
  int max_rank = 0;
  std::vector<int> ranks;                   // distinct, ascending
  std::vector<std::string> target_modules;  // "q_proj", sorted
  std::string base_model;                   // as the adapter's config names it, cut if it is long
  double alpha = 0;                         // lora_alpha of its config

  bool operator==(const AdapterFacts&) const = default;
};
using AdapterFactsPtr = std::shared_ptr<const AdapterFacts>;

// Of all that an image's layout depends on besides the adapter's files. `ranks`: that share it.
std::string FactsFingerprint(const ModelConfig& model, std::string_view backend, size_t page_bytes,
                             size_t ranks = 1);

// At most kMaxFactsBytes (memory/stored_version.h), whatever the facts are.
std::string FactsToText(const AdapterFacts& facts, std::string_view fingerprint);
// FailedPrecondition if `text` has another fingerprint or is empty, DataLoss if it is not ours.
absl::StatusOr<AdapterFacts> FactsFromText(std::string_view text, std::string_view fingerprint);

// FactsTable: facts as shared objects. Adapters of one recipe have equal facts, and thousands of
// them one object. Thread-safe.
class FactsTable {
 public:
  explicit FactsTable(std::string fingerprint) : fingerprint_(std::move(fingerprint)) {}

  const std::string& fingerprint() const { return fingerprint_; }
  // As FactsFromText with this table's fingerprint; parses no text twice.
  absl::StatusOr<AdapterFactsPtr> FromText(std::string_view text);
  size_t size() const;  // texts that are remembered

 private:
  void ForgetUnused();  // REQUIRES: mutex_ is held

  const std::string fingerprint_;
  mutable std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const AdapterFacts>, std::less<>>
      facts_;              // guarded by mutex_
  size_t forget_at_ = 64;  // guarded by mutex_: size of facts_ at which to look for unused ones
};

}  // namespace lorad
