// The catalog's changes: each checks under change_mutex_ that it may happen, has the store do it,
// and publishes what the store holds then.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/store_errors.h"
#include "server/adapter_catalog.h"

namespace lorad {
namespace {

bool IsBelow(const std::filesystem::path& path, const std::filesystem::path& root) {
  const auto mismatch = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return mismatch.first == root.end();
}

absl::Status AlreadyExists(std::string_view id, std::string_view what_to_do) {
  return OfAdapter(
      absl::AlreadyExistsError(fmt::format("adapter \"{}\" exists; {}", id, what_to_do)),
      "ADAPTER_EXISTS", id);
}

absl::Status Exhausted(std::string_view reason, std::string message) {
  return WithReason(absl::ResourceExhaustedError(std::move(message)), reason);
}

absl::Status CheckEtag(const std::optional<AdapterInfo>& now, std::string_view etag,
                       std::string_view id) {
  if (etag.empty() || (now.has_value() && now->etag() == etag)) return absl::OkStatus();
  return OfAdapter(
      absl::AbortedError(fmt::format(
          "adapter \"{}\" is not what the etag says any more; get it and decide anew", id)),
      "ETAG_MISMATCH", id);
}

std::optional<Expected> ExpectedOf(const std::optional<AdapterInfo>& now) {
  if (!now.has_value()) return std::nullopt;
  return Expected{.version = now->current_version, .revision = now->revision};
}

// Whether the files can be those of the adapter, as far as one can tell without reading them.
// `certain`: they are.
bool SameFiles(const std::optional<AdapterInfo>& now, std::span<const DeclaredFile> files,
               bool certain) {
  // Files that could not be loaded are to be replaced, also by what they should be.
  if (!now.has_value() || !now->version->activity->LastError().empty()) return false;
  int64_t bytes = 0;
  for (const DeclaredFile& file : files) {
    const AdapterVersion& version = *now->version;
    const std::string& stored =
        file.name == kAdapterWeightsFile ? version.sha256 : version.config_sha256;
    if (file.sha256.empty() ? certain : file.sha256 != stored) return false;
    if (file.bytes < 0 || file.bytes > version.file_bytes) return false;
    bytes += file.bytes;
  }
  if (files.empty()) return !certain;
  return files.size() == 2 && files[0].name != files[1].name && bytes == now->version->file_bytes;
}

std::vector<DeclaredFile> FilesOf(const StagedAdapter& staged) {
  const StoredFile config = staged.config();
  const StoredFile weights = staged.weights();
  return {{std::string(kAdapterConfigFile), config.bytes, config.sha256},
          {std::string(kAdapterWeightsFile), weights.bytes, weights.sha256}};
}

}  // namespace

absl::StatusOr<std::string> AdapterCatalog::IdForCreate(std::string_view caller,
                                                        std::string_view adapter_id) {
  LORAD_RETURN_IF_ERROR(ValidateAdapterId(adapter_id));
  const std::string_view owner = OwnerOf(adapter_id);
  if (owner == "adapters") return InvalidField("adapter_id", "must be without \"adapters/\"");
  if (caller.empty() || owner == caller) return std::string(adapter_id);
  if (owner.empty()) return AdapterIdIn(caller, adapter_id);
  return NotYours(adapter_id);
}

absl::Status AdapterCatalog::CheckCreatable(const NewAdapter& wanted,
                                            std::span<const DeclaredFile> files) const {
  const std::string& id = wanted.id;
  const std::optional<AdapterInfo> now = Peek("", id);
  LORAD_RETURN_IF_ERROR(CheckEtag(now, wanted.etag, id));
  if (SameFiles(now, files, /*certain=*/false)) return absl::OkStatus();
  if (now.has_value() && !wanted.replace) {
    return AlreadyExists(id, "set replace to make a new version");
  }
  if (!now.has_value() && Count("") >= parts_.max_adapters) {
    return Exhausted("TOO_MANY_ADAPTERS",
                     fmt::format("the server keeps at most {} adapters", parts_.max_adapters));
  }
  const std::string_view owner = OwnerOf(id);
  const TenantLimits& limits = parts_.tenants->Of(owner);
  const StoreUsage usage = parts_.store->OwnerUsage(owner);
  if (!now.has_value() && limits.max_adapters > 0 && usage.adapters >= limits.max_adapters) {
    return Exhausted("TENANT_TOO_MANY_ADAPTERS",
                     fmt::format("tenant \"{}\" has {} adapters and may have {}", owner,
                                 usage.adapters, limits.max_adapters));
  }
  int64_t room = limits.max_bytes - usage.bytes;
  bool fits = room >= 0;
  for (const DeclaredFile& file : files) {
    fits &= file.bytes <= room;
    if (fits) room -= std::max<int64_t>(0, file.bytes);
  }
  if (limits.max_bytes > 0 && !fits) {
    return Exhausted("TENANT_BYTES_EXCEEDED",
                     fmt::format("tenant \"{}\" stores {} bytes and may store {}", owner,
                                 usage.bytes, limits.max_bytes));
  }
  return absl::OkStatus();
}

bool AdapterCatalog::HasFiles(std::string_view id, std::span<const DeclaredFile> files) const {
  return SameFiles(Peek("", id), files, /*certain=*/true);
}

absl::StatusOr<AdapterInfo> AdapterCatalog::TakeStored(const NewAdapter& wanted,
                                                       std::span<const DeclaredFile> files) {
  const std::lock_guard changing(change_mutex_);
  const std::optional<AdapterInfo> now = Now(wanted.id);
  LORAD_RETURN_IF_ERROR(CheckEtag(now, wanted.etag, wanted.id));
  if (!SameFiles(now, files, /*certain=*/true)) {
    return WithRetryAfter(
        WithReason(absl::AbortedError("the adapter changed in this moment; try again"),
                   "ADAPTER_CHANGED"),
        std::chrono::milliseconds(0));
  }
  return wanted.settings.has_value() ? UpdateTo(*now, *wanted.settings) : *now;
}

absl::StatusOr<AdapterInfo> AdapterCatalog::Commit(StagedAdapter staged, const NewAdapter& wanted) {
  LORAD_RETURN_IF_ERROR(staged.CheckComplete());
  const std::vector<DeclaredFile> files = FilesOf(staged);
  LORAD_RETURN_IF_ERROR(CheckCreatable(wanted, files));
  AdapterFactsPtr facts;
  if (!HasFiles(wanted.id, files)) {
    LORAD_ASSIGN_OR_RETURN(facts, parts_.images->Check(staged.path(), AdapterCheck::kWhole));
  }
  const std::lock_guard changing(change_mutex_);
  const std::optional<AdapterInfo> now = Now(wanted.id);
  LORAD_RETURN_IF_ERROR(CheckEtag(now, wanted.etag, wanted.id));
  if (SameFiles(now, files, /*certain=*/true)) {
    return wanted.settings.has_value() ? UpdateTo(*now, *wanted.settings) : *now;
  }
  if (facts == nullptr) {  // they were the same a moment ago
    LORAD_ASSIGN_OR_RETURN(facts, parts_.images->Check(staged.path(), AdapterCheck::kWhole));
  }
  return CommitNew(std::move(staged), wanted, now, std::move(facts));
}

absl::StatusOr<AdapterInfo> AdapterCatalog::CommitNew(StagedAdapter staged,
                                                      const NewAdapter& wanted,
                                                      const std::optional<AdapterInfo>& now,
                                                      AdapterFactsPtr facts) {
  const AdapterSettingsPtr settings = wanted.settings.has_value() ? ShareSettings(*wanted.settings)
                                      : now.has_value()           ? now->settings
                                                                  : ShareSettings({});
  LORAD_RETURN_IF_ERROR(CheckSettings(wanted.id, *settings, facts->pages));
  const TenantLimits& limits = parts_.tenants->Of(OwnerOf(wanted.id));
  CommitOptions options{.if_exists = wanted.replace ? IfExists::kReplace : IfExists::kRefuse,
                        .facts = parts_.images->FactsText(*facts),
                        .expected = ExpectedOf(now),
                        .max_adapters = parts_.max_adapters,
                        .owner_max_adapters = limits.max_adapters,
                        .owner_max_bytes = limits.max_bytes};
  if (wanted.settings.has_value() && *wanted.settings != AdapterSettings()) {
    LORAD_ASSIGN_OR_RETURN(options.settings, NextText(*wanted.settings));
  } else if (wanted.settings.has_value()) {
    options.settings = "";
  }
  LORAD_ASSIGN_OR_RETURN(const StoredAdapter stored,
                         parts_.store->Commit(std::move(staged), wanted.id, options));
  return Publish(stored, settings, std::move(facts));
}

absl::StatusOr<AdapterInfo> AdapterCatalog::CreateFromPath(const std::filesystem::path& path,
                                                           const NewAdapter& wanted) {
  LORAD_RETURN_IF_ERROR(CheckCreatable(wanted, {}));
  if (path.empty() || !path.is_absolute()) return InvalidField("path", "must be an absolute path");
  std::error_code ec;
  const std::filesystem::path real = std::filesystem::canonical(path, ec);
  // Outside the roots and absent are one answer: the file system is not to be explored from here.
  const bool allowed =
      !ec && std::any_of(parts_.roots.begin(), parts_.roots.end(), [&](const auto& root) {
        std::error_code e;
        const std::filesystem::path r = std::filesystem::canonical(root, e);
        return !e && IsBelow(real, r);
      });
  if (!allowed) {
    return InvalidField("path",
                        "is not an adapter directory below one of the server's adapter roots",
                        "PATH_NOT_ALLOWED");
  }
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, parts_.store->BeginCopy(real));
  return Commit(std::move(staged), wanted);
}

absl::StatusOr<AdapterInfo> AdapterCatalog::Import(const std::filesystem::path& path,
                                                   const std::string& id) {
  std::error_code ec;
  const std::filesystem::path real = std::filesystem::canonical(path, ec);
  if (ec) return absl::NotFoundError(fmt::format("{}: {}", path.string(), ec.message()));
  LORAD_ASSIGN_OR_RETURN(StagedAdapter staged, parts_.store->BeginCopy(real));
  return Commit(std::move(staged), {.id = id});
}

absl::Status AdapterCatalog::CheckSettings(std::string_view id, const AdapterSettings& settings,
                                           uint32_t pages) const {
  const std::optional<AdapterInfo> now = Now(id);
  const std::string_view tenant = OwnerOf(id);
  for (const std::string& alias : settings.aliases) {
    // One that it has may have become hidden by an adapter since.
    const bool has_it = now.has_value() && std::count(now->settings->aliases.begin(),
                                                      now->settings->aliases.end(), alias) > 0;
    const std::string other = AdapterIdIn(tenant, alias);
    if (!has_it && (other == id || directory_.Get(other) != nullptr)) {
      return AlreadyExists(other, "its name cannot be an alias");
    }
  }
  const uint32_t had = now.has_value() && now->settings->pinned ? now->version->pages : 0;
  const uint64_t pinned = directory_.pinned_pages() - had + pages;
  if (settings.pinned && pages > had && pinned > parts_.max_pinned_pages) {
    return Exhausted("PINNED_TOO_MUCH",
                     fmt::format("pinned adapters would take {} pages of the pool; they may take "
                                 "{}",
                                 pinned, parts_.max_pinned_pages));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AdapterCatalog::NextText(const AdapterSettings& settings) {
  return SettingsToText({.settings = settings, .sequence = next_sequence_++});
}

absl::StatusOr<AdapterInfo> AdapterCatalog::UpdateTo(const AdapterInfo& now,
                                                     AdapterSettings settings) {
  if (settings == *now.settings) return now;
  LORAD_RETURN_IF_ERROR(CheckSettings(now.id(), settings, now.version->pages));
  LORAD_ASSIGN_OR_RETURN(std::string text, NextText(settings));
  LORAD_ASSIGN_OR_RETURN(const StoredAdapter stored,
                         parts_.store->UpdateSettings(now.id(), std::move(text), ExpectedOf(now)));
  return Publish(stored, ShareSettings(std::move(settings)), nullptr);
}

absl::StatusOr<AdapterInfo> AdapterCatalog::ForChange(std::string_view caller,
                                                      std::string_view name,
                                                      std::string_view etag) const {
  LORAD_ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "name"));
  LORAD_ASSIGN_OR_RETURN(AdapterInfo now, directory_.FindForChange(caller, parsed));
  LORAD_RETURN_IF_ERROR(CheckEtag(now, etag, now.id()));
  return now;
}

absl::StatusOr<AdapterInfo> AdapterCatalog::Update(std::string_view caller, std::string_view name,
                                                   const AdapterSettings& settings,
                                                   const SettingsMask& mask,
                                                   std::string_view etag) {
  const std::lock_guard changing(change_mutex_);
  LORAD_ASSIGN_OR_RETURN(const AdapterInfo now, ForChange(caller, name, etag));
  return UpdateTo(now, MergeSettings(*now.settings, settings, mask));
}

absl::StatusOr<AdapterInfo> AdapterCatalog::Rollback(std::string_view caller, std::string_view name,
                                                     int64_t version, std::string_view etag) {
  if (version < 0) return InvalidField("version", "must not be negative");
  const std::lock_guard changing(change_mutex_);
  LORAD_ASSIGN_OR_RETURN(const AdapterInfo now, ForChange(caller, name, etag));
  AdapterVersionPtr target;
  for (const AdapterVersionPtr& kept : directory_.Get(now.id())->kept) {
    const bool wanted = version == 0 || kept->version == version;
    if (target == nullptr && wanted && kept->facts != nullptr) target = kept;
  }
  if (target == nullptr) {
    return version == 0 ? OfAdapter(absl::NotFoundError(fmt::format(
                                        "no older version of adapter \"{}\" is kept", now.id())),
                                    "VERSION_NOT_FOUND", now.id())
                        : VersionNotFound(now.id(), version);
  }
  LORAD_RETURN_IF_ERROR(CheckSettings(now.id(), *now.settings, target->pages));
  LORAD_ASSIGN_OR_RETURN(const StoredAdapter stored,
                         parts_.store->Rollback(now.id(), target->version, ExpectedOf(now)));
  return Publish(stored, now.settings, target->facts);
}

absl::StatusOr<std::string> AdapterCatalog::Delete(std::string_view caller, std::string_view name,
                                                   std::string_view etag) {
  const std::lock_guard changing(change_mutex_);
  const absl::StatusOr<AdapterInfo> now = ForChange(caller, name, etag);
  if (absl::IsNotFound(now.status())) return DeleteUnusable(caller, name, now.status());
  LORAD_RETURN_IF_ERROR(now.status());
  const std::string id = now->id();
  LORAD_RETURN_IF_ERROR(parts_.store->Delete(id, ExpectedOf(*now)));
  const Entry old = *directory_.Get(id);
  int count = 0;
  {
    const std::lock_guard lock(mutex_);
    directory_.Erase(id);
    count = directory_.size();
  }
  LetGo(old, nullptr);
  hooks_->counted(count);
  hooks_->changed(id);
  return id;
}

absl::StatusOr<std::string> AdapterCatalog::DeleteUnusable(std::string_view caller,
                                                           std::string_view name,
                                                           const absl::Status& not_found) {
  LORAD_ASSIGN_OR_RETURN(const AdapterName parsed, ParseAdapterName(name, "name"));
  const std::string id =
      AdapterIdIn(parsed.tenant.empty() ? caller : std::string_view(parsed.tenant), parsed.name);
  const bool may_change = caller.empty() || OwnerOf(id) == caller;
  if (!may_change || !parts_.store->Get(id).ok()) return not_found;
  LORAD_RETURN_IF_ERROR(parts_.store->RemoveAll(id));
  return id;
}

AdapterInfo AdapterCatalog::Publish(const StoredAdapter& stored, AdapterSettingsPtr settings,
                                    AdapterFactsPtr facts) {
  const std::set<std::string> taken(settings->aliases.begin(), settings->aliases.end());
  std::set<std::string> losers;
  for (const std::string& alias : taken) {
    losers.insert(directory_.AliasHolder(OwnerOf(stored.id()), alias));
  }
  losers.erase("");
  losers.erase(stored.id());
  AdapterInfo info = Show(stored, std::move(settings), std::move(facts));
  for (const std::string& id : losers) LoseAliases(id, taken);
  return info;
}

void AdapterCatalog::LoseAliases(const std::string& id, const std::set<std::string>& lost) {
  const AdapterInfo now = *Now(id);
  AdapterSettings settings = *now.settings;
  std::erase_if(settings.aliases, [&](const std::string& alias) { return lost.contains(alias); });
  const auto write = [&]() -> absl::StatusOr<StoredAdapter> {
    LORAD_ASSIGN_OR_RETURN(std::string text, NextText(settings));
    return parts_.store->UpdateSettings(id, std::move(text), ExpectedOf(now));
  };
  absl::StatusOr<StoredAdapter> stored = write();
  // If the disk is full the aliases have moved all the same: the winner's text has the greater
  // sequence, and a restart goes by that.
  if (!stored.ok()) stored = parts_.store->Get(id);
  if (stored.ok()) Show(*stored, ShareSettings(std::move(settings)), nullptr);
}

}  // namespace lorad
