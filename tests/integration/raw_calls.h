// Calls that the client library does not make: uploads message by message, and reflection.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad::integration {

enum class UploadEnd { kHalfClose, kCancel };

// Sends these messages (after each `after_message`, if there is one), calls `before_end` if there
// is one, then ends as told. Errors carry the details that client/error.h decodes.
absl::StatusOr<v1::Adapter> UploadMessages(const std::string& address,
                                           const std::vector<v1::UploadAdapterRequest>& messages,
                                           UploadEnd end,
                                           const std::function<void()>& before_end = nullptr,
                                           const std::function<void()>& after_message = nullptr);

// The server's answer to "list all services", as reflection's wire format has it: the names are in
// it as they are.
absl::StatusOr<std::string> ListServices(const std::string& address);

}  // namespace lorad::integration
