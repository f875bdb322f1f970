// The server's load as text. Pure.
#pragma once

#include <string>

#include "client/loractl/terminal.h"
#include "lorad/v1/admin.pb.h"

namespace lorad::loractl {

// Load and rates between two moments. `before` may equal `now`: rates are then averages since the
// server started.
std::string Load(const v1::Stats& before, const v1::Stats& now, const Terminal& terminal);

}  // namespace lorad::loractl
