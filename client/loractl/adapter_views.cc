#include "client/loractl/adapter_views.h"

#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <map>
#include <utility>

namespace lorad::loractl {
namespace {

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

std::string State(const v1::Adapter& adapter, const Terminal& terminal) {
  return terminal.Paint(StateColor(adapter.state()), v1::Adapter::State_Name(adapter.state()));
}

// "team=sea,tier=gold", in the order of the keys.
std::string Labels(const v1::AdapterSettings& settings) {
  const std::map<std::string, std::string> sorted(settings.labels().begin(),
                                                  settings.labels().end());
  std::vector<std::string> parts;
  for (const auto& [key, value] : sorted) parts.push_back(fmt::format("{}={}", key, value));
  return Visible(Join(parts, ","));
}

std::string Aliases(const v1::AdapterSettings& settings) {
  return Join({settings.aliases().begin(), settings.aliases().end()}, ",");
}

std::string OrDash(std::string text) { return text.empty() ? "-" : std::move(text); }

std::string Created(const v1::Adapter& adapter) {
  if (!adapter.has_create_time()) return "-";
  return google::protobuf::util::TimeUtil::ToString(adapter.create_time());
}

}  // namespace

std::string AdapterTable(const std::vector<v1::Adapter>& adapters, bool wide,
                         const Terminal& terminal) {
  const bool staged = std::any_of(adapters.begin(), adapters.end(),
                                  [](const v1::Adapter& a) { return a.staged_bytes() > 0; });
  std::vector<std::string> heading = {"NAME", "VERSION", "RANK", "STORED"};
  if (staged) heading.push_back("STAGED");
  heading.insert(heading.end(), {"RESIDENT", "PINNED", "ACTIVE", "LAST USE"});
  if (wide) heading.insert(heading.end(), {"IMAGE", "PAGES", "REQUESTS", "ALIASES", "LABELS"});
  heading.push_back("STATE");

  std::vector<size_t> right;
  const std::vector<std::string_view> to_left = {"NAME", "LAST USE", "ALIASES", "LABELS", "STATE"};
  for (size_t i = 0; i < heading.size(); ++i) {
    if (std::find(to_left.begin(), to_left.end(), heading[i]) == to_left.end()) right.push_back(i);
  }
  Table table(heading);
  for (const v1::Adapter& a : adapters) {
    std::vector<std::string> row = {ShortName(a.name()), fmt::format("{}", a.version()),
                                    fmt::format("{}", a.rank()), Bytes(a.size_bytes())};
    if (staged) row.push_back(Bytes(a.staged_bytes()));
    row.insert(row.end(), {Bytes(a.resident_bytes()), a.settings().pinned() ? "yes" : "",
                           fmt::format("{}", a.active_requests()), Ago(a.last_use_time())});
    if (wide) {
      row.insert(row.end(), {Bytes(a.image_bytes()), fmt::format("{}", a.image_pages()),
                             fmt::format("{}", a.total_requests()), OrDash(Aliases(a.settings())),
                             OrDash(Labels(a.settings()))});
    }
    row.push_back(State(a, terminal));
    table.Add(std::move(row));
  }
  return table.Text(terminal, right);
}

std::string AdapterDetails(const v1::Adapter& a, const Terminal& terminal) {
  std::vector<std::string> ranks;
  for (const int rank : a.ranks()) ranks.push_back(fmt::format("{}", rank));
  const std::vector<std::string> modules(a.target_modules().begin(), a.target_modules().end());
  std::string version = fmt::format("{}", a.version());
  if (a.origin_version() > 0) version += fmt::format(" (files of {})", a.origin_version());
  std::vector<std::pair<std::string_view, std::string>> rows = {
      {"name", a.name()},
      {"tenant", a.tenant().empty() ? "none: public" : a.tenant()},
      {"version", version},
      {"etag", a.etag()},
      {"state", State(a, terminal) + (a.settings().pinned() ? ", pinned" : "")},
      {"labels", OrDash(Labels(a.settings()))},
      {"aliases", OrDash(Aliases(a.settings()))},
      {"about", OrDash(Visible(a.settings().description()))},
      {"rank", fmt::format("{} (ranks {}), alpha {:g}", a.rank(), Join(ranks, ", "), a.alpha())},
      {"modules", Join(modules, ", ")},
      {"base model", OrDash(a.base_model())},
      {"stored", Bytes(a.size_bytes())},
      {"image", fmt::format("{}, {} pages", Bytes(a.image_bytes()), a.image_pages())},
      {"resident", fmt::format("{}, {} pages", Bytes(a.resident_bytes()), a.resident_pages())},
      {"weights", fmt::format("sha256 {}", a.sha256())},
      {"config", fmt::format("sha256 {}", a.config_sha256())},
      {"requests", fmt::format("{} now, {} in all", a.active_requests(), a.total_requests())},
      {"created", Created(a)},
      {"last use", Ago(a.last_use_time())},
  };
  if (a.staged_bytes() > 0) rows.emplace_back("staged", Bytes(a.staged_bytes()));
  if (!a.last_error().empty()) {
    rows.emplace_back("last error", terminal.Paint(Color::kRed, a.last_error()));
  }
  std::string out;
  for (const auto& [label, value] : rows) {
    out += terminal.Paint(Color::kDim, fmt::format("{:<11}", label)) + value + "\n";
  }
  return out;
}

std::string VersionTable(const std::vector<v1::Adapter>& versions, const Terminal& terminal) {
  Table table({"VERSION", "FILES OF", "RANK", "STORED", "CREATED", "REQUESTS", "WEIGHTS", ""});
  for (size_t i = 0; i < versions.size(); ++i) {
    const v1::Adapter& a = versions[i];
    table.Add({fmt::format("{}", a.version()),
               a.origin_version() > 0 ? fmt::format("{}", a.origin_version()) : "",
               fmt::format("{}", a.rank()), Bytes(a.size_bytes()), Created(a),
               fmt::format("{}", a.total_requests()), a.sha256().substr(0, 12),
               i == 0 ? terminal.Paint(Color::kGreen, "current") : ""});
  }
  return table.Text(terminal, {0, 1, 2, 3, 5});
}

std::string EventLine(const v1::WatchAdaptersResponse& event, const Terminal& terminal) {
  const v1::Adapter& a = event.adapter();
  const std::string type = fmt::format("{:<8}", v1::WatchAdaptersResponse::Type_Name(event.type()));
  switch (event.type()) {
    case v1::WatchAdaptersResponse::SYNCED:
      return terminal.Paint(Color::kDim, type + " what follows happens now");
    case v1::WatchAdaptersResponse::DELETED:
      return fmt::format("{} {}", terminal.Paint(Color::kRed, type), ShortName(a.name()));
    default:
      break;
  }
  const bool now = event.type() == v1::WatchAdaptersResponse::CHANGED;
  std::string line =
      fmt::format("{} {} version {} {}", terminal.Paint(now ? Color::kYellow : Color::kNone, type),
                  ShortName(a.name()), a.version(), State(a, terminal));
  if (a.settings().pinned()) line += " pinned";
  if (const std::string labels = Labels(a.settings()); !labels.empty()) line += " " + labels;
  if (!a.last_error().empty()) line += " error: " + Visible(a.last_error());
  return line;
}

}  // namespace lorad::loractl
