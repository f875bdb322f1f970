// Whatever the text, PeftAdapterConfig either refuses it with a field, or answers for every module
// within its limits.
#include <cmath>
#include <string_view>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "model/adapter_config.h"
#include "tests/fuzz/fuzz_target.h"

namespace lorad {
namespace {

void CheckRefusal(const absl::Status& status) {
  const ErrorDetail detail = GetErrorDetail(status);
  LORAD_CHECK(!detail.field.empty());
  LORAD_CHECK(detail.reason == "INVALID_FIELD" || detail.reason == "ADAPTER_UNSUPPORTED_FIELD");
}

void CheckPromises(const PeftAdapterConfig& config, int max_rank) {
  for (const std::string_view module :
       {"model.layers.0.self_attn.q_proj", "model.layers.31.mlp.down_proj", "lm_head"}) {
    const auto targeted = config.Targets(module);
    if (!targeted.ok()) CheckRefusal(targeted.status());
    const auto rank = config.RankOf(module);
    if (!rank.ok()) {
      CheckRefusal(rank.status());
      continue;
    }
    LORAD_CHECK(*rank >= 1 && *rank <= max_rank);
    const auto scale = config.ScaleOf(module, *rank);
    if (!scale.ok()) CheckRefusal(scale.status());
    LORAD_CHECK(!scale.ok() || std::isfinite(static_cast<float>(*scale)));
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj","v_proj"]})",
          R"({"base_model_name_or_path":"acme/base","bias":"none","fan_in_fan_out":false,
              "init_lora_weights":"gaussian","lora_alpha":32.5,"lora_dropout":0.1,
              "peft_type":"LORA","r":16,"task_type":"CAUSAL_LM","use_rslora":true,
              "rank_pattern":{"q_proj":4,".*layers\\.[0-9]\\..*":64},"alpha_pattern":{"^model.*":2},
              "target_modules":"model\\.layers\\.\\d+\\.(self_attn|mlp)\\.(q|down)_proj"})",
          R"({"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj","lm_head"],
              "exclude_modules":["k_proj"],"layers_to_transform":[0,1,31],
              "layers_pattern":["layers","h"]})",
          R"({"peft_type":"LORA","r":256,"lora_alpha":1,"target_modules":"all-linear",
              "exclude_modules":".*mlp.*","loftq_config":{},"use_dora":false,
              "modules_to_save":null})"};
}

std::vector<std::string> FuzzDictionary() {
  return {"(.*)*",
          "(a|a)*",
          "(?R)",
          "(?:",
          "\\\\1",
          "[^",
          "\\\\d+",
          "(?P<idx>",
          "{1,65535}",
          "\\\\K",
          "(*LIMIT_MATCH=1)",
          "\"use_dora\":true,",
          "\"r\":1,",
          "null",
          "[]",
          "{}",
          "[[",
          "\"\"",
          "\xc3\xa9",
          "\xff",
          "\\ud800",
          "true",
          "false"};
}

}  // namespace lorad

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const lorad::AdapterLimits limits;
  const auto config = lorad::PeftAdapterConfig::Parse(text, limits);
  if (!config.ok()) {
    lorad::CheckRefusal(config.status());
    return lorad::kFuzzRefused;
  }
  lorad::CheckPromises(*config, limits.max_rank);
  return lorad::kFuzzAccepted;
}
