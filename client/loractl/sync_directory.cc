#include "client/loractl/sync_directory.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "client/adapter_files.h"
#include "client/loractl/sync_settings.h"

namespace lorad::loractl {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxSettingsBytes = 1 << 20;

// Whether there is something of this name, be it a link to nothing.
bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

bool HasAdapterFiles(const fs::path& directory) {
  return Exists(directory / kConfigFile) || Exists(directory / kWeightsFile) ||
         Exists(directory / kSettingsFile);
}

absl::StatusOr<v1::AdapterSettings> ReadSettings(const std::string& path) {
  std::error_code error;
  const std::uintmax_t bytes = fs::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) return absl::NotFoundError(fmt::format("{}: cannot be read", kSettingsFile));
  if (bytes > kMaxSettingsBytes) {
    return absl::InvalidArgumentError(fmt::format("{}: larger than 1 MiB", kSettingsFile));
  }
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  auto settings = ParseSettings(text);
  if (settings.ok()) return settings;
  return absl::InvalidArgumentError(
      fmt::format("{}: {}", kSettingsFile, std::string(settings.status().message())));
}

// Equal as long as nobody wrote to the file.
std::string Identity(const struct stat& file) {
  return fmt::format("{}:{}:{}:{}.{}:{}.{}", file.st_dev, file.st_ino, file.st_size,
                     file.st_mtim.tv_sec, file.st_mtim.tv_nsec, file.st_ctim.tv_sec,
                     file.st_ctim.tv_nsec);
}

}  // namespace

absl::StatusOr<std::vector<LocalAdapter>> SyncDirectory::Read() {
  std::error_code error;
  root_ = fs::canonical(path_, error).string();
  if (error) {
    return absl::NotFoundError(fmt::format("cannot read {}: {}", path_, error.message()));
  }
  adapters_.clear();
  known_before_ = std::exchange(known_, {});
  const absl::Status status = Walk(root_, "");
  if (!status.ok()) {
    known_ = std::exchange(known_before_, {});
    return status;
  }
  known_before_.clear();
  std::sort(adapters_.begin(), adapters_.end(),
            [](const LocalAdapter& a, const LocalAdapter& b) { return a.id < b.id; });
  RefuseSharedAliases();
  return std::exchange(adapters_, {});
}

absl::Status SyncDirectory::Walk(const std::string& directory, const std::string& tenant) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator it(directory, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) {
    return absl::NotFoundError(fmt::format("cannot read {}: {}", directory, error.message()));
  }
  for (const std::string& name : names) {
    if (name[0] == '.') continue;
    Visit((fs::path(directory) / name).string(), tenant.empty() ? name : tenant + "/" + name,
          !tenant.empty());
  }
  return absl::OkStatus();
}

void SyncDirectory::Visit(const std::string& path, const std::string& id, bool below_tenant) {
  std::error_code error;
  const std::string real = fs::canonical(path, error).string();
  if (error) {
    if (Exists(path)) {
      Refuse(id, absl::NotFoundError(fmt::format("cannot be followed: {}", error.message())));
    }
    return;  // else it went away just now
  }
  if (!fs::is_directory(real, error)) {
    if (error) Refuse(id, absl::NotFoundError(error.message()));
    return;
  }
  if (!Below(real)) {
    Refuse(id, absl::InvalidArgumentError("a link to what is not below DIR"));
  } else if (HasAdapterFiles(real)) {
    adapters_.push_back(ReadAdapter(real, id));
  } else if (!below_tenant) {
    if (absl::Status status = Walk(real, id); !status.ok()) Refuse(id, std::move(status));
  }
}

LocalAdapter SyncDirectory::ReadAdapter(const std::string& directory, const std::string& id) {
  LocalAdapter adapter;
  adapter.id = id;
  const auto failed = [&id](absl::Status status) {
    LocalAdapter bad;
    bad.id = id;
    bad.error = std::move(status);
    return bad;
  };
  const auto settings_path = Resolve(directory, kSettingsFile);
  if (settings_path.ok()) {
    auto settings = ReadSettings(*settings_path);
    if (!settings.ok()) return failed(settings.status());
    adapter.settings = *std::move(settings);
  } else if (!absl::IsNotFound(settings_path.status())) {
    return failed(settings_path.status());
  }
  auto config_sha256 = Hash(directory, kConfigFile);
  if (!config_sha256.ok()) return failed(config_sha256.status());
  auto sha256 = Hash(directory, kWeightsFile);
  if (!sha256.ok()) return failed(sha256.status());
  adapter.config_sha256 = *std::move(config_sha256);
  adapter.sha256 = *std::move(sha256);
  adapter.directory = directory;
  return adapter;
}

absl::StatusOr<std::string> SyncDirectory::Resolve(const std::string& directory,
                                                   std::string_view name) const {
  const fs::path path = fs::path(directory) / name;
  if (!Exists(path)) return absl::NotFoundError(fmt::format("{}: not there", name));
  std::error_code error;
  const std::string real = fs::canonical(path, error).string();
  if (error) {
    return absl::InvalidArgumentError(
        fmt::format("{}: cannot be followed: {}", name, error.message()));
  }
  if (!Below(real)) {
    return absl::InvalidArgumentError(fmt::format("{}: a link to what is not below DIR", name));
  }
  if (!fs::is_regular_file(real, error)) {
    return absl::InvalidArgumentError(fmt::format("{}: not a file", name));
  }
  return real;
}

absl::StatusOr<std::string> SyncDirectory::Hash(const std::string& directory,
                                                std::string_view name) {
  const auto path = Resolve(directory, name);
  if (!path.ok()) return path.status();
  struct stat file {};
  if (stat(path->c_str(), &file) != 0) {
    return absl::NotFoundError(fmt::format("{}: cannot be read", name));
  }
  KnownFile known{.identity = Identity(file), .sha256 = {}};
  const auto before = known_before_.find(*path);
  if (before != known_before_.end() && before->second.identity == known.identity) {
    known.sha256 = before->second.sha256;
  } else {
    const auto description = DescribeFile(*path);
    if (!description.ok()) return description.status();
    known.sha256 = description->sha256();
  }
  return known_.insert_or_assign(*path, known).first->second.sha256;
}

bool SyncDirectory::Below(const std::string& real_path) const {
  const std::string prefix = root_ == "/" ? root_ : root_ + "/";
  return real_path.size() > prefix.size() && real_path.compare(0, prefix.size(), prefix) == 0;
}

// An alias moves to the adapter that names it last: two adapters that name it would take it from
// each other for ever.
void SyncDirectory::RefuseSharedAliases() {
  std::map<std::string, std::string> owners;  // by "tenant/alias"
  for (LocalAdapter& adapter : adapters_) {
    const size_t slash = adapter.id.find('/');
    const std::string tenant = slash == std::string::npos ? "" : adapter.id.substr(0, slash);
    for (const std::string& alias : adapter.settings.aliases()) {
      const auto [owner, mine] = owners.emplace(fmt::format("{}/{}", tenant, alias), adapter.id);
      if (mine || owner->second == adapter.id) continue;
      adapter.error = absl::InvalidArgumentError(fmt::format(
          "{}: aliases: {} is an alias of {} already", kSettingsFile, alias, owner->second));
    }
  }
}

void SyncDirectory::Refuse(const std::string& id, absl::Status why) {
  LocalAdapter adapter;
  adapter.id = id;
  adapter.error = std::move(why);
  adapters_.push_back(std::move(adapter));
}

}  // namespace lorad::loractl
