// loractl adapters upload, create.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "client/loractl/adapter_commands.h"

namespace lorad::loractl {
namespace {

struct Options : SettingsOptions {
  std::vector<std::string> directories;
  std::string id, path, etag;
  bool replace = false;
  bool preload = false;
};

// The last part of a path, whether or not it ends in a slash.
std::string DirectoryName(const std::string& directory) {
  return std::filesystem::absolute(directory + "/.").lexically_normal().parent_path().filename();
}

ExitCode Upload(const Options& options, Session* session) {
  const Terminal& terminal = session->terminal;
  if (options.directories.size() > 1) {
    if (!options.id.empty()) return session->Usage("--id: only with one directory");
    if (!options.etag.empty()) return session->Usage("--etag: only with one directory");
    if (!options.aliases.empty()) return session->Usage("--alias: only with one directory");
  }
  for (const std::string& directory : options.directories) {
    if (!std::filesystem::is_directory(directory)) {
      return session->Usage(fmt::format("{} is not a directory", directory));
    }
  }
  const auto settings = options.Settings();
  if (!settings.ok()) return session->Usage(std::string(settings.status().message()));
  for (const std::string& directory : options.directories) {
    const AdapterUpload upload{
        .adapter_id = options.id.empty() ? DirectoryName(directory) : options.id,
        .directory = directory,
        .replace = options.replace,
        .preload = options.preload,
        .settings = *settings,
        .etag = options.etag};
    bool progress_shown = false;
    const auto adapter = session->client().UploadAdapter(
        upload,
        [&](int64_t sent, int64_t total) {
          if (!terminal.interactive()) return;
          terminal.err() << fmt::format("\r{}: {} of {}", upload.adapter_id, Bytes(sent),
                                        Bytes(total))
                         << std::flush;
          progress_shown = true;
        },
        session->call());
    if (progress_shown) terminal.err() << "\n";
    if (const ExitCode code = Show(adapter, session); code != kOk) return code;
  }
  return kOk;
}

ExitCode Create(const Options& options, Session* session) {
  const auto settings = options.Settings();
  if (!settings.ok()) return session->Usage(std::string(settings.status().message()));
  v1::CreateAdapterRequest request;
  request.set_adapter_id(options.id);
  request.set_path(options.path);
  request.set_replace(options.replace);
  request.set_preload(options.preload);
  request.set_etag(options.etag);
  if (settings->has_value()) *request.mutable_settings() = **settings;
  return Show(session->client().CreateAdapter(request, session->call()), session);
}

}  // namespace

void AddAdapterUpload(CLI::App* group, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* upload = group->add_subcommand("upload", "Send PEFT directories to the server");
  upload
      ->add_option("directory", options->directories,
                   "With adapter_config.json and adapter_model.safetensors")
      ->required();
  upload->add_option("--id", options->id,
                     "The adapter's name [the directory's]; for a tenant: acme/foo");
  upload->callback([=] { session->run = [=] { return Upload(*options, session); }; });

  CLI::App* create =
      group->add_subcommand("create", "Take a PEFT directory that lies on the server");
  create->add_option("id", options->id, "The adapter's name")->required();
  create->add_option("path", options->path, "The directory, as the server sees it")->required();
  create->callback([=] { session->run = [=] { return Create(*options, session); }; });

  for (CLI::App* command : {upload, create}) {
    command->add_flag("--replace", options->replace,
                      "Make a new version if it exists; running requests finish on the old one");
    command->add_flag("--preload", options->preload, "Load it into the pool at once");
    command->add_option("--etag", options->etag,
                        "Replace only this state of it (see `adapters get`)");
    options->AddTo(command);
    command->footer(
        "Files that the adapter has already are not sent and make no new version. Settings given\n"
        "here are all that it will have; without any it keeps its own, and `adapters update` "
        "changes\nsingle ones.\n"
        "Example:\n"
        "  loractl adapters upload ./pirate --replace -l team=sea --description 'Talks so' --pin");
  }
}

}  // namespace lorad::loractl
