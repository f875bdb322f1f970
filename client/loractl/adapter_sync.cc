// loractl adapters sync: once, or again and again beside a server.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "client/loractl/adapter_commands.h"
#include "client/loractl/stop_signal.h"
#include "client/loractl/sync_round.h"
#include "client/loractl/sync_settings.h"

namespace lorad::loractl {
namespace {

constexpr char kSyncFooter[] =
    "DIR/foo with adapter_config.json and adapter_model.safetensors is the adapter foo;\n"
    "DIR/acme/foo is tenant acme's foo if DIR/acme has no such files itself. Names that begin\n"
    "with '.' are skipped; links are followed if they stay below DIR. An optional lorad.json\n"
    "beside the files gives all its settings:\n"
    "  {\"labels\": {\"team\": \"sea\"}, \"description\": \"Talks so\", \"pinned\": true,\n"
    "   \"aliases\": [\"corsair\"]}\n"
    "What is equal is left alone; what differs is uploaded, or only its settings are changed.\n"
    "Sync marks what it manages with the label lorad.dev/managed-by=SOURCE and touches nothing\n"
    "else: a name that the server has otherwise is a conflict (see --adopt).\n"
    "Exit code 0 only if all is well, else that of the first failure. With --json a line an\n"
    "adapter: {\"name\", \"action\", \"version\", \"reason\", \"dry_run\"}.\n"
    "Examples:\n"
    "  loractl adapters sync /srv/adapters --dry-run         # what would it do?\n"
    "  loractl adapters sync /srv/adapters --prune\n"
    "  loractl adapters sync /srv/adapters --prune --watch 30  # a sidecar: SIGTERM ends it";

struct Options : SyncOptions {
  std::string directory;
  double watch_s = 0;  // 0: once
};

Color ActionColor(SyncAction action) {
  switch (action) {
    case SyncAction::kCreated:
    case SyncAction::kReplaced:
    case SyncAction::kUpdated:
      return Color::kGreen;
    case SyncAction::kDeleted:
      return Color::kYellow;
    case SyncAction::kConflict:
    case SyncAction::kFailed:
      return Color::kRed;
    case SyncAction::kUnchanged:
      break;
  }
  return Color::kNone;
}

std::string RowJson(const SyncRow& row, bool dry_run) {
  nlohmann::ordered_json json = {{"name", row.name},
                                 {"action", SyncActionName(row.action)},
                                 {"version", row.version},
                                 {"reason", row.reason},
                                 {"dry_run", dry_run}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void PrintTable(const std::vector<SyncRow>& rows, bool dry_run, const Terminal& terminal) {
  Table table({"NAME", "VERSION", dry_run ? "WOULD BE" : "RESULT", "REASON"});
  std::map<SyncAction, int> counts;
  for (const SyncRow& row : rows) {
    ++counts[row.action];
    table.Add({ShortName(row.name), row.version > 0 ? fmt::format("{}", row.version) : "-",
               std::string(SyncActionName(row.action)),
               terminal.Paint(ActionColor(row.action), Visible(row.reason))});
  }
  if (!table.empty()) terminal.out() << table.Text(terminal, {1});
  std::vector<std::string> parts;
  for (const SyncAction action :
       {SyncAction::kCreated, SyncAction::kReplaced, SyncAction::kUpdated, SyncAction::kUnchanged,
        SyncAction::kDeleted, SyncAction::kConflict, SyncAction::kFailed}) {
    parts.push_back(fmt::format("{} {}", counts[action], SyncActionName(action)));
  }
  terminal.out() << Join(parts, ", ") << (dry_run ? " (dry run: nothing was done)" : "") << "\n";
}

ExitCode RunOnce(const Options& options, SyncDirectory* directory, SyncRound* round,
                 Session* session) {
  const auto locals = directory->Read();
  if (!locals.ok()) return session->Usage(std::string(locals.status().message()));
  const auto rows = round->Run(*locals);
  if (!rows.ok()) return session->Fail(rows.status());
  if (session->json) {
    for (const SyncRow& row : *rows)
      session->terminal.out() << RowJson(row, options.dry_run) << "\n";
  } else {
    PrintTable(*rows, options.dry_run, session->terminal);
  }
  for (const SyncRow& row : *rows) {
    if (row.code != kOk) return row.code;
  }
  return kOk;
}

// Runs rounds and prints what is new: changes, and failures that were not there a round ago.
class Watcher {
 public:
  Watcher(SyncDirectory* directory, SyncRound* round, Session* session)
      : directory_(directory), round_(round), session_(session) {}

  void Round() {
    const auto locals = directory_->Read();
    if (!locals.ok()) return Outage(locals.status());
    const auto rows = round_->Run(*locals);
    if (!rows.ok()) return Outage(rows.status());
    if (!outage_.empty()) session_->terminal.err() << "sync goes on\n";
    outage_.clear();
    std::map<std::string, std::string> failures;
    for (const SyncRow& row : *rows) {
      if (row.action == SyncAction::kUnchanged) continue;
      if (row.code != kOk) {
        failures[row.name] = row.reason;
        const auto before = failures_.find(row.name);
        if (before != failures_.end() && before->second == row.reason) continue;
      }
      Print(row);
    }
    failures_ = std::move(failures);
  }

 private:
  void Outage(const absl::Status& status) {
    const std::string text = status.ToString(absl::StatusToStringMode::kWithNoExtraData);
    if (text == outage_) return;
    outage_ = text;
    session_->Fail(status);
  }

  void Print(const SyncRow& row) {
    const Terminal& terminal = session_->terminal;
    if (session_->json) {
      terminal.out() << RowJson(row, /*dry_run=*/false) << std::endl;
      return;
    }
    terminal.out() << terminal.Paint(ActionColor(row.action),
                                     fmt::format("{:<9}", SyncActionName(row.action)))
                   << " " << ShortName(row.name);
    if (row.version > 0) terminal.out() << " version " << row.version;
    if (!row.reason.empty()) terminal.out() << ": " << Visible(row.reason);
    terminal.out() << std::endl;
  }

  SyncDirectory* const directory_;
  SyncRound* const round_;
  Session* const session_;
  std::string outage_;                           // of the last round; empty: none
  std::map<std::string, std::string> failures_;  // reasons by name, of the last round
};

ExitCode Run(const Options& options, Session* session) {
  if (options.source.empty()) return session->Usage("--source: must not be empty");
  SyncOptions sync = options;
  sync.tenant = session->tenant;
  SyncDirectory directory(options.directory);
  SyncRound round(&session->client(), session->call(), sync);
  if (options.watch_s <= 0) return RunOnce(options, &directory, &round, session);
  const StopSignal stop;
  Watcher watcher(&directory, &round, session);
  do {
    watcher.Round();
  } while (!stop.Wait(std::chrono::milliseconds(static_cast<int64_t>(1000 * options.watch_s))));
  return kOk;
}

}  // namespace

void AddAdapterSync(CLI::App* group, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* sync =
      group->add_subcommand("sync", "Make the server's adapters equal to those of a directory");
  sync->add_option("directory", options->directory, "A directory of PEFT directories")->required();
  sync->add_flag("--prune", options->prune, "Delete managed adapters that are not in DIR any more");
  sync->add_flag("--allow-empty", options->allow_empty,
                 "With --prune: delete all of them if DIR holds no adapter at all; without this, "
                 "that is taken for a volume that is not mounted");
  sync->add_option("--source", options->source,
                   "Who manages: two syncs of different sources never touch each other's [sync]");
  sync->add_flag("--adopt", options->adopt,
                 "Take over adapters of the same names that are not managed, or by others");
  CLI::Option* dry_run =
      sync->add_flag("-n,--dry-run", options->dry_run, "Print what would be done; do nothing");
  sync->add_option("--watch", options->watch_s,
                   "Do it again after so many seconds, for ever; print only what changes")
      ->check(CLI::PositiveNumber)
      ->excludes(dry_run);
  sync->footer(kSyncFooter);
  sync->callback([=] { session->run = [=] { return Run(*options, session); }; });
}

}  // namespace lorad::loractl
