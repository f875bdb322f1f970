// Text pictures of the server's state, shared by pool and top. Pure.
#pragma once

#include <string>

#include "client/loractl/terminal.h"
#include "lorad/v1/admin.pb.h"

namespace lorad::loractl {

// The pool as a bar with its legend.
std::string PoolPicture(const v1::Pool& pool, const Terminal& terminal);
// Who holds adapter pages: at most `rows` rows, most recently used first.
std::string PoolAdapters(const v1::Pool& pool, int rows, const Terminal& terminal);

// Load and rates between two moments. `before` may equal `now`: rates are then averages since the
// server started.
std::string Load(const v1::Stats& before, const v1::Stats& now, const Terminal& terminal);

}  // namespace lorad::loractl
