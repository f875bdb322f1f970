// loractl adapters: list, get, upload, create, delete.
#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "client/loractl/json.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

struct Options {
  std::vector<std::string> names;
  std::vector<std::string> directories;
  std::string id, path, state;
  bool replace = false;
  bool preload = false;
  bool allow_missing = false;
};

Color StateColor(v1::Adapter::State state) {
  switch (state) {
    case v1::Adapter::RESIDENT:
      return Color::kGreen;
    case v1::Adapter::LOADING:
      return Color::kYellow;
    default:
      return Color::kNone;
  }
}

void PrintTable(const std::vector<v1::Adapter>& adapters, const Terminal& terminal) {
  Table table({"NAME", "VERSION", "RANK", "SIZE", "PAGES", "ACTIVE", "LAST USE", "STATE"});
  for (const v1::Adapter& a : adapters) {
    table.Add({ShortName(a.name()), fmt::format("{}", a.version()), fmt::format("{}", a.rank()),
               Bytes(a.size_bytes()), fmt::format("{}", a.resident_pages()),
               fmt::format("{}", a.active_requests()), Ago(a.last_use_time()),
               terminal.Paint(StateColor(a.state()), v1::Adapter::State_Name(a.state()))});
  }
  terminal.out() << table.Text(terminal, {1, 2, 3, 4, 5});
}

void PrintOne(const v1::Adapter& a, const Terminal& terminal) {
  std::vector<std::string> ranks;
  for (const int rank : a.ranks()) ranks.push_back(fmt::format("{}", rank));
  const std::vector<std::string> modules(a.target_modules().begin(), a.target_modules().end());
  const std::vector<std::pair<std::string_view, std::string>> rows = {
      {"name", a.name()},
      {"version", fmt::format("{}", a.version())},
      {"state", terminal.Paint(StateColor(a.state()), v1::Adapter::State_Name(a.state()))},
      {"rank", fmt::format("{} (ranks {}), alpha {:g}", a.rank(), Join(ranks, ", "), a.alpha())},
      {"modules", Join(modules, ", ")},
      {"base model", a.base_model()},
      {"size", Bytes(a.size_bytes())},
      {"sha256", a.sha256()},
      {"resident", fmt::format("{} pages, {}", a.resident_pages(), Bytes(a.resident_bytes()))},
      {"requests", fmt::format("{} now, {} in all", a.active_requests(), a.total_requests())},
      {"created", google::protobuf::util::TimeUtil::ToString(a.create_time())},
      {"last use", Ago(a.last_use_time())},
  };
  for (const auto& [label, value] : rows) {
    terminal.out() << terminal.Paint(Color::kDim, fmt::format("{:<11}", label)) << value << "\n";
  }
}

ExitCode Show(const absl::StatusOr<v1::Adapter>& adapter, Session* session) {
  if (!adapter.ok()) return session->Fail(adapter.status());
  if (session->json) {
    session->terminal.out() << ToJson(*adapter) << "\n";
  } else {
    PrintOne(*adapter, session->terminal);
  }
  return kOk;
}

ExitCode List(const Options& options, Session* session) {
  v1::Adapter::State state = v1::Adapter::STATE_UNSPECIFIED;
  if (!options.state.empty() && !v1::Adapter::State_Parse(options.state, &state)) {
    return session->Usage(fmt::format("--state: no such state: {}", options.state));
  }
  const auto adapters = session->client().ListAdapters({.state = state}, session->call());
  if (!adapters.ok()) return session->Fail(adapters.status());
  if (session->json) {
    session->terminal.out() << ToJsonArray(*adapters) << "\n";
  } else if (adapters->empty()) {
    session->terminal.err() << "no adapters\n";
  } else {
    PrintTable(*adapters, session->terminal);
  }
  return kOk;
}

// The last part of a path, whether or not it ends in a slash.
std::string DirectoryName(const std::string& directory) {
  return std::filesystem::absolute(directory + "/.").lexically_normal().parent_path().filename();
}

ExitCode Upload(const Options& options, Session* session) {
  const Terminal& terminal = session->terminal;
  if (!options.id.empty() && options.directories.size() > 1) {
    return session->Usage("--id: only with one directory");
  }
  for (const std::string& directory : options.directories) {
    if (!std::filesystem::is_directory(directory)) {
      return session->Usage(fmt::format("{} is not a directory", directory));
    }
  }
  for (const std::string& directory : options.directories) {
    const AdapterUpload upload{
        .adapter_id = options.id.empty() ? DirectoryName(directory) : options.id,
        .directory = directory,
        .replace = options.replace,
        .preload = options.preload};
    const auto adapter = session->client().UploadAdapter(
        upload,
        [&](int64_t sent, int64_t total) {
          if (!terminal.interactive()) return;
          terminal.err() << fmt::format("\r{}: {} of {}", upload.adapter_id, Bytes(sent),
                                        Bytes(total))
                         << (sent == total ? "\n" : "") << std::flush;
        },
        session->call());
    if (const ExitCode code = Show(adapter, session); code != kOk) return code;
  }
  return kOk;
}

ExitCode Create(const Options& options, Session* session) {
  v1::CreateAdapterRequest request;
  request.set_adapter_id(options.id);
  request.set_path(options.path);
  request.set_replace(options.replace);
  request.set_preload(options.preload);
  return Show(session->client().CreateAdapter(request, session->call()), session);
}

ExitCode Get(const Options& options, Session* session) {
  for (const std::string& name : options.names) {
    const ExitCode code = Show(session->client().GetAdapter(name, session->call()), session);
    if (code != kOk) return code;
  }
  return kOk;
}

ExitCode Delete(const Options& options, Session* session) {
  for (const std::string& name : options.names) {
    const absl::Status status =
        session->client().DeleteAdapter(name, options.allow_missing, {}, session->call());
    if (!status.ok()) return session->Fail(status);
    if (!session->json) session->terminal.out() << "deleted " << name << "\n";
  }
  return kOk;
}

using Action = ExitCode (*)(const Options&, Session*);

CLI::App* AddAction(CLI::App* group, const char* name, const char* description, Action action,
                    const std::shared_ptr<Options>& options, Session* session) {
  CLI::App* command = group->add_subcommand(name, description);
  command->callback([=] { session->run = [=] { return action(*options, session); }; });
  return command;
}

}  // namespace

void AddAdapters(CLI::App* app, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* group = app->add_subcommand("adapters", "The adapters that the server keeps");
  group->require_subcommand(1);
  group->footer(
      "Examples:\n"
      "  loractl adapters upload ./pirate                   # becomes adapters/pirate\n"
      "  loractl adapters upload ./out --id pirate --replace  # a new version of it\n"
      "  loractl adapters create pirate /srv/lora/pirate      # files that lie on the server\n"
      "  loractl adapters list --state RESIDENT --json | jq -r '.[].name'");

  CLI::App* list = AddAction(group, "list", "All adapters", List, options, session);
  list->add_option("--state", options->state, "Only STORED, LOADING or RESIDENT ones");

  CLI::App* get = AddAction(group, "get", "All about one adapter", Get, options, session);
  get->add_option("name", options->names, "Adapter")->required();

  CLI::App* upload =
      AddAction(group, "upload", "Send PEFT directories to the server", Upload, options, session);
  upload
      ->add_option("directory", options->directories,
                   "With adapter_config.json and adapter_model.safetensors")
      ->required();
  upload->add_option("--id", options->id, "The adapter's name [the directory's]");

  CLI::App* create = AddAction(group, "create", "Take a PEFT directory that lies on the server",
                               Create, options, session);
  create->add_option("id", options->id, "The adapter's name")->required();
  create->add_option("path", options->path, "The directory, as the server sees it")->required();

  for (CLI::App* command : {upload, create}) {
    command->add_flag("--replace", options->replace,
                      "Make a new version if it exists; running requests finish on the old one");
    command->add_flag("--preload", options->preload, "Load it into the pool at once");
  }

  CLI::App* remove = AddAction(group, "delete", "Delete adapters", Delete, options, session);
  remove->add_option("name", options->names, "Adapters")->required();
  remove->add_flag("--allow-missing", options->allow_missing, "Succeed if there is none");
}

}  // namespace lorad::loractl
