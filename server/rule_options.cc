#include "server/rule_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

namespace lorad {
namespace {

constexpr char kGroup[] = "Scheduling rules";
constexpr double kLongest = 86400;  // seconds
constexpr double kDearest = 1000;

}  // namespace

void RuleOptions::AddTo(CLI::App& app) {
  const auto add = [&app](const char* name, auto* value, const char* help) {
    return app.add_option(name, *value, help)->capture_default_str()->group(kGroup);
  };
  add("--max-step-adapter-bytes", &rules_.max_adapter_bytes,
      "Adapters that run in one step, together: what they add to a decode step's reads; 0: no "
      "bound. One alone is never too large")
      ->transform(CLI::AsSizeValue(false));
  add("--input-price", &rules_.input_price,
      "What a computed prompt token counts when tenants are compared");
  add("--output-price", &rules_.output_price, "The same, a token that is made");
  add("--cached-price", &rules_.cached_price, "The same, a prompt token that the prefix cache had");
  add("--kept-places-share", &rules_.kept_places_share,
      "Of the places in the batch: kept for tenants that run fewer requests than their share");
  add("--lower-class-share", &rules_.lower_class_share,
      "Of a step: kept from interactive requests while less urgent ones have something to do");
  add("--ageing", &ageing_s_,
      "Seconds without an admission after which a class counts as one more urgent; 0: never");
  add("--give-way", &rules_.give_way,
      "Running requests of less urgent classes, and those whose clients do not read, give up "
      "their places to those that lack one");
  add("--parking-delay", &parking_delay_s_,
      "Seconds without reading after which a client's request gives up its place");
  add("--max-preemptions", &rules_.max_preemptions,
      "Times that one request gives up its place, while there is anybody else");
  add("--max-overtakes", &rules_.max_overtakes,
      "Requests that go before one whose adapter is not there; then room is made for it");
  add("--max-overtaken", &max_overtaken_s_, "The same, in seconds since the first one");
}

void RuleOptions::Check(const std::function<void(bool, std::string)>& require) const {
  const auto within = [&require](const char* name, double value, double least, double most) {
    require(value >= least && value <= most,
            fmt::format("{}: must be in [{}, {}]", name, least, most));
  };
  within("--input-price", rules_.input_price, 0, kDearest);
  within("--output-price", rules_.output_price, 0, kDearest);
  within("--cached-price", rules_.cached_price, 0, kDearest);
  within("--kept-places-share", rules_.kept_places_share, 0, 0.9);
  within("--lower-class-share", rules_.lower_class_share, 0, 0.9);
  within("--ageing", ageing_s_, 0, kLongest);
  within("--parking-delay", parking_delay_s_, 0, kLongest);
  within("--max-overtaken", max_overtaken_s_, 0, kLongest);
  within("--max-preemptions", rules_.max_preemptions, 0, 1000);
  within("--max-overtakes", rules_.max_overtakes, 1, 1000000);
}

void RuleOptions::Apply(SchedulerPolicy* policy) const {
  policy->max_adapter_bytes = rules_.max_adapter_bytes;
  policy->input_price = rules_.input_price;
  policy->output_price = rules_.output_price;
  policy->cached_price = rules_.cached_price;
  policy->kept_places_share = rules_.kept_places_share;
  policy->lower_class_share = rules_.lower_class_share;
  policy->ageing = FromSeconds(ageing_s_);
  policy->give_way = rules_.give_way;
  policy->parking_delay = FromSeconds(parking_delay_s_);
  policy->max_preemptions = rules_.max_preemptions;
  policy->max_overtakes = rules_.max_overtakes;
  policy->max_overtaken_time = FromSeconds(max_overtaken_s_);
}

}  // namespace lorad
