// Adapters as text for people. Pure.
#pragma once

#include <string>
#include <vector>

#include "client/loractl/terminal.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad::loractl {

// A row an adapter. `wide`: labels, aliases, image and requests too. The column of host memory is
// there only if an adapter has bytes in it (see Adapter.staged_bytes).
std::string AdapterTable(const std::vector<v1::Adapter>& adapters, bool wide,
                         const Terminal& terminal);
// All about one adapter, a line a fact.
std::string AdapterDetails(const v1::Adapter& adapter, const Terminal& terminal);
// A row a version; the first of `versions` is the current one.
std::string VersionTable(const std::vector<v1::Adapter>& versions, const Terminal& terminal);
// What happened, on one line.
std::string EventLine(const v1::WatchAdaptersResponse& event, const Terminal& terminal);

}  // namespace lorad::loractl
