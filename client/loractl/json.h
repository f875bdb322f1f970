// Messages as JSON for scripts: field names as in the .proto files, 64-bit integers as numbers,
// durations in seconds, timestamps in RFC 3339, bytes as text (what is not UTF-8 becomes U+FFFD),
// enumerations by name, maps as objects. Fields that can be unset are left out when they are; all
// others are always there.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

namespace lorad::loractl {

// On one line.
std::string ToJson(const google::protobuf::Message& message);

template <typename Message>
std::string ToJsonArray(const std::vector<Message>& messages) {
  std::string out = "[";
  for (size_t i = 0; i < messages.size(); ++i) {
    out += (i == 0 ? "" : ",\n ") + ToJson(messages[i]);
  }
  return out + "]";
}

}  // namespace lorad::loractl
