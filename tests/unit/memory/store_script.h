// What tests of crashes and faults do to a store's adapters, and what they know of them. Every
// change is told in lines: what will be the case, before; that it is, after.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "memory/adapter_store.h"

namespace lorad {

// What is known of an adapter from the lines, in the words of Describe.
struct Known {
  std::string acknowledged = "none";
  std::string intended;  // not acknowledged; empty: nothing is in flight
  int64_t greatest = 0;  // version seen
};
using KnownAdapters = std::map<std::string, Known>;

// Takes in what was said.
void Read(const std::string& lines, KnownAdapters* known);

// Each adapter of `store` is as it was acknowledged, or as it was intended if that was in flight.
// From here on it is known to be as it is, and nothing is in flight.
void ExpectKnown(const AdapterStore& store, KnownAdapters* known);

// An adapter to be changed. What cannot be done to it as it is does nothing.
class ScriptedAdapter {
 public:
  using Say = std::function<void(const std::string& line)>;
  ScriptedAdapter(AdapterStore* store, std::string id, Say say);

  absl::Status Put(int seed, const std::optional<std::string>& settings = {}) const;
  absl::Status Rollback(size_t kept) const;  // to the one with this index
  absl::Status UpdateSettings(const std::string& settings) const;
  absl::Status Delete() const;
  absl::Status Quarantine() const;
  absl::Status RemoveLingering() const;  // changes nothing that anybody can see

 private:
  struct State {
    int seed = -1;
    std::vector<int> kept;
    std::string settings;
    int64_t revision = 0;
  };
  State Now() const;
  void Begin(const std::string& intended) const;
  absl::Status End(const absl::Status& status) const;
  absl::Status End(const absl::StatusOr<StoredAdapter>& adapter) const;

  AdapterStore* const store_;
  const std::string id_;
  const Say say_;
};

// One of the above. The bytes are often those that others have too.
absl::Status RandomChange(const ScriptedAdapter& adapter, std::mt19937* random);

// Makes a change, as often as it takes to succeed.
using Step = std::function<void(const std::function<absl::Status()>& change)>;
using Script =
    std::function<void(AdapterStore* store, const ScriptedAdapter::Say& say, const Step& step)>;
void VersionsComeAndGo(AdapterStore* store, const ScriptedAdapter::Say& say, const Step& step);
void SettingsChangeAndANameIsUsedAgain(AdapterStore* store, const ScriptedAdapter::Say& say,
                                       const Step& step);

}  // namespace lorad
