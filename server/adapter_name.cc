#include "server/adapter_name.h"

#include <fmt/format.h>

#include "memory/base/error_detail.h"
#include "memory/stored_version.h"

namespace lorad {
namespace {

constexpr std::string_view kPrefix = "adapters/";

}  // namespace

std::string AdapterName::id() const { return AdapterIdIn(tenant, name); }

absl::StatusOr<AdapterName> ParseAdapterName(std::string_view text, std::string_view field) {
  AdapterName out;
  if (text.starts_with(kPrefix)) text.remove_prefix(kPrefix.size());
  if (text.empty()) return InvalidField(field, "is required");
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    out.version = ParseVersionNumber(text.substr(at + 1));
    if (out.version == 0) return InvalidField(field, "has no version's number after its \"@\"");
    text = text.substr(0, at);
  }
  // A leading slash is part of the name, which then is nobody's.
  if (const size_t slash = text.find('/'); slash != std::string_view::npos && slash > 0) {
    out.tenant = text.substr(0, slash);
    text.remove_prefix(slash + 1);
  }
  out.name = text;
  return out;
}

std::string AdapterIdIn(std::string_view tenant, std::string_view name) {
  return tenant.empty() ? std::string(name) : fmt::format("{}/{}", tenant, name);
}

}  // namespace lorad
