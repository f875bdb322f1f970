// Text pictures of the page pool. Pure.
#pragma once

#include <string>
#include <vector>

#include "client/loractl/terminal.h"
#include "lorad/v1/admin.pb.h"

namespace lorad::loractl {

// The pool as one bar as wide as the terminal, a letter and a colour a state, with its legend.
std::string PoolPicture(const v1::Pool& pool, const Terminal& terminal);
// What the bar does not show: bytes wasted, adapters in host memory, what the pool has learned.
// Empty if there is none.
std::string PoolFacts(const v1::Pool& pool);
// Who holds pages: at most `rows` rows, the most first.
std::string PoolTenants(const v1::Pool& pool, int rows, const Terminal& terminal);
// Who holds adapter pages: at most `rows` rows, most recently used first.
std::string PoolAdapters(const v1::Pool& pool, int rows, const Terminal& terminal);

// What `fit` answers to `request`.
std::string FitText(const v1::GetFitRequest& request, const v1::Fit& fit, const Terminal& terminal);
std::string TenantTable(const std::vector<v1::Tenant>& tenants, const Terminal& terminal);

}  // namespace lorad::loractl
