// Each rule of the scheduler switched off, on workloads that are hard in different ways.
#include <fmt/format.h>

#include "tests/simulation/evidence/hardships.h"
#include "tests/simulation/policy_rules.h"

namespace lorad::sim {
namespace {

using Switch = void (*)(SchedulerPolicy*);

struct Column {
  std::string name;
  Switch change;
};

std::vector<Column> Columns() {
  std::vector<Column> columns = {
      {"FCFS",
       [](SchedulerPolicy* p) {
         const uint64_t bound = p->max_adapter_bytes;  // the workload's, and no rule here
         *p = PlainFcfs(*p);
         p->max_adapter_bytes = bound;
       }},
      {"optimistic", [](SchedulerPolicy* p) { p->admission = AdmissionMode::kOptimistic; }}};
  for (const PolicyRule& rule : PolicyRules()) {
    columns.push_back({fmt::format("no {}", rule.name), rule.switch_off});
  }
  return columns;
}

// One row a figure. What a change leaves as it was is not repeated.
std::string Rows(const Hardship& h, const std::vector<Column>& columns) {
  const auto figures = [&h](const SimulationOptions& options) {
    const Measured m = Measure(options, h.requests);
    std::vector<std::string> values;
    for (const Figure& f : h.figures) values.push_back(fmt::format("{:.3g}", f.of(m, h.requests)));
    return values;
  };
  const std::vector<std::string> all_rules = figures(h.options);
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < h.figures.size(); ++i) {
    rows.push_back({i == 0 ? h.name : "", h.figures[i].name, all_rules[i]});
  }
  for (const Column& column : columns) {
    SimulationOptions options = h.options;
    column.change(&options.server.engine.policy);
    const std::vector<std::string> values = figures(options);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].push_back(values[i] == all_rules[i] ? "" : values[i]);
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows) text += TableRow(row);
  return text;
}

}  // namespace

std::string RulesSection(const Pictures&) {
  const std::vector<Column> columns = Columns();
  std::vector<std::string> head = {"workload", "figure", "all rules"};
  for (const Column& column : columns) head.push_back(column.name);
  std::string text =
      "\n## Each rule switched off\nLess is better; empty: as with all rules. *optimistic*: "
      "all rules, with `--admission optimistic`.\n\n";
  for (const PolicyRule& rule : PolicyRules()) {
    text += fmt::format("- *{}*: {}\n", rule.name, rule.explanation);
  }
  text += "\nThe workloads:\n\n";
  std::string table;
  for (const Hardship& h : Hardships()) {
    text += fmt::format("- *{}*: {}\n", h.name, h.explanation);
    table += Rows(h, columns);
  }
  return text + "\n" + TableHead(head) + table;
}

}  // namespace lorad::sim
