#include "model/adapter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/json.h"
#include "model/mapped_file.h"

namespace lorad {
namespace {

constexpr char kUnsupported[] = "ADAPTER_UNSUPPORTED_FIELD";
constexpr size_t kMaxPatterns = 1024;
constexpr size_t kMaxNames = 4096;
constexpr int64_t kMaxLayers = 1024;
constexpr double kMaxAlpha = 1e6;
constexpr char kAnyLayerPattern[] = R"(.*?\.[^.]*\.(?P<idx>\d+)\..*)";

// Fields that act only while training, or that describe: how the adapter was made, not what it
// computes. `loftq_config`, `eva_config` and the like belong to values of init_lora_weights, which
// is checked.
constexpr std::string_view kHarmless[] = {
    "auto_mapping",      "corda_config",    "ephemeral_gpu_offload", "eva_config",
    "fan_in_fan_out",    "inference_mode",  "loftq_config",          "lora_dropout",
    "lora_ga_config",    "megatron_config", "megatron_core",         "peft_version",
    "qalora_group_size", "revision",        "runtime_config",        "velora_config"};

// Initialisations that leave the base model's weights alone. The others (pissa*, corda, olora,
// loftq) subtract what they start from, so that A and B only fit a base model that lorad does not
// have.
constexpr std::string_view kPlainInit[] = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"};

std::string Lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace

// Fills a PeftAdapterConfig from the fields of the file; mistakes collect in `fields`.
class PeftConfigReader {
 public:
  PeftConfigReader(const JsonValue& json, const AdapterLimits& limits)
      : fields_(json), limits_(limits) {}

  absl::StatusOr<PeftAdapterConfig> Read() {
    ReadKind();
    config_.rank_ = static_cast<int>(fields_.Int("r", 1, limits_.max_rank));
    config_.alpha_ = fields_.Number("lora_alpha", -kMaxAlpha, kMaxAlpha);
    config_.use_rslora_ = fields_.Bool("use_rslora", false);
    config_.rank_pattern_ = ReadPatterns("rank_pattern", true);
    config_.alpha_pattern_ = ReadPatterns("alpha_pattern", false);
    ReadModuleSet("target_modules", true, config_.targets_);
    ReadModuleSet("exclude_modules", false, config_.excluded_);
    ReadLayers();
    config_.base_model_name_ = fields_.String("base_model_name_or_path", "");
    for (const std::string_view name : kHarmless) fields_.Ignore(name);
    LORAD_RETURN_IF_ERROR(fields_.Finish(kUnsupported));
    return std::move(config_);
  }

 private:
  void ReadKind() {
    const std::string type = fields_.String("peft_type", "");
    if (type != "LORA") fields_.Unsupported("peft_type", fmt::format("\"{}\" is not LORA", type));
    const std::string task = fields_.String("task_type", "CAUSAL_LM");
    if (task != "CAUSAL_LM") {
      fields_.Unsupported("task_type", fmt::format("\"{}\" is not CAUSAL_LM", task));
    }
    const std::string bias = fields_.String("bias", "none");
    if (bias != "none") {
      fields_.Unsupported("bias", fmt::format("\"{}\": trained biases are not served", bias));
    }
    const JsonValue* init = fields_.Get("init_lora_weights");
    if (init == nullptr || init->boolean() != nullptr) return;
    if (init->string() == nullptr) {
      return fields_.Invalid("init_lora_weights", "must be a boolean or a string");
    }
    if (std::find(std::begin(kPlainInit), std::end(kPlainInit), Lower(*init->string())) ==
        std::end(kPlainInit)) {
      fields_.Unsupported(
          "init_lora_weights",
          fmt::format(
              "\"{}\" fits only a base model with changed weights; convert the adapter to "
              "plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion)",
              *init->string()));
    }
  }

  std::vector<PeftAdapterConfig::PatternValue> ReadPatterns(std::string_view name, bool ranks) {
    std::vector<PeftAdapterConfig::PatternValue> result;
    const JsonValue* value = fields_.Get(name);
    if (value == nullptr) return result;
    if (value->object() == nullptr || value->object()->size() > kMaxPatterns) {
      fields_.Invalid(name, fmt::format("must be an object of at most {} patterns", kMaxPatterns));
      return result;
    }
    for (const auto& [key, entry] : *value->object()) {
      const std::string field = fmt::format("{}.{}", name, key);
      const std::optional<double> number = entry.number();
      if (ranks && !(entry.integer() >= 1 && entry.integer() <= limits_.max_rank)) {
        fields_.Invalid(field, fmt::format("must be an integer from 1 to {}", limits_.max_rank));
        return result;
      }
      if (!number.has_value() || !(std::abs(*number) <= kMaxAlpha)) {
        fields_.Invalid(field, fmt::format("must be a number up to {}", kMaxAlpha));
        return result;
      }
      std::optional<ModulePattern> regex = Compile(field, fmt::format(R"((.*\.)?({})$)", key));
      if (!regex.has_value()) return result;
      result.push_back({key, std::move(*regex), *number});
    }
    return result;
  }

  std::optional<ModulePattern> Compile(std::string_view field, std::string_view pattern) {
    absl::StatusOr<ModulePattern> regex = ModulePattern::Compile(pattern);
    if (regex.ok()) return std::move(regex).value();
    fields_.Invalid(field, Message(regex.status()));
    return std::nullopt;
  }

  std::vector<std::string> ReadNames(std::string_view name, const JsonValue& value) {
    std::vector<std::string> names;
    if (value.array() == nullptr || value.array()->size() > kMaxNames) {
      fields_.Invalid(name, fmt::format("must be a list of at most {} names", kMaxNames));
      return names;
    }
    for (const JsonValue& entry : *value.array()) {
      if (entry.string() == nullptr) {
        fields_.Invalid(name, "every entry must be a string");
        return names;
      }
      names.push_back(*entry.string());
    }
    return names;
  }

  void ReadModuleSet(std::string_view name, bool required, PeftAdapterConfig::ModuleSet& set) {
    const JsonValue* value = fields_.Get(name);
    if (value == nullptr || value->IsOff()) {
      if (required) fields_.Invalid(name, "must name at least one module");
      return;
    }
    if (value->string() == nullptr) {
      set.names = ReadNames(name, *value);
    } else if (required && Lower(*value->string()) == "all-linear") {
      set.all_linear = true;
    } else {
      set.pattern = Compile(name, *value->string());
    }
  }

  void ReadLayers() {
    const JsonValue* layers = fields_.Get("layers_to_transform");
    const JsonValue* pattern = fields_.Get("layers_pattern");
    if (layers == nullptr || (layers->array() != nullptr && layers->array()->empty())) return;
    if (config_.targets_.names.empty()) {
      return fields_.Invalid("layers_to_transform", "needs target_modules to be a list");
    }
    const JsonValue::Array one =
        layers->array() == nullptr ? JsonValue::Array{*layers} : JsonValue::Array();
    for (const JsonValue& layer : layers->array() != nullptr ? *layers->array() : one) {
      const std::optional<int64_t> index = layer.integer();
      if (!(index >= 0 && index < kMaxLayers) || config_.layers_.size() >= kMaxLayers) {
        return fields_.Invalid("layers_to_transform",
                               fmt::format("must be layer numbers below {}", kMaxLayers));
      }
      config_.layers_.push_back(static_cast<int>(*index));
    }
    std::vector<std::string> patterns;
    if (pattern != nullptr && pattern->string() != nullptr) {
      if (!pattern->IsOff()) patterns = {*pattern->string()};
    } else if (pattern != nullptr) {
      patterns = ReadNames("layers_pattern", *pattern);
    }
    for (std::string& text : patterns)
      text = fmt::format(R"((?:^|.*?\.){}\.(?P<idx>\d+)\..*)", text);
    if (patterns.empty()) patterns = {kAnyLayerPattern};
    for (const std::string& text : patterns) {
      std::optional<ModulePattern> regex = Compile("layers_pattern", text);
      if (!regex.has_value()) return;
      config_.layer_patterns_.push_back(std::move(*regex));
    }
  }

  JsonFields fields_;
  const AdapterLimits limits_;
  PeftAdapterConfig config_;
};

absl::StatusOr<PeftAdapterConfig> PeftAdapterConfig::Parse(std::string_view json,
                                                           const AdapterLimits& limits) {
  const absl::StatusOr<JsonValue> value = JsonValue::Parse(json);
  if (!value.ok()) return InvalidField("adapter_config.json", Message(value.status()));
  return PeftConfigReader(*value, limits).Read();
}

bool PeftAdapterConfig::NameMatches(std::string_view module, std::string_view target) {
  if (!module.ends_with(target)) return false;
  const size_t before = module.size() - target.size();
  return before == 0 || module[before - 1] == '.';
}

absl::StatusOr<bool> PeftAdapterConfig::ModuleSet::Contains(std::string_view module) const {
  if (all_linear) return module != "lm_head";  // all but the output head
  if (pattern.has_value()) return pattern->FullMatch(module);
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return NameMatches(module, name); });
}

absl::StatusOr<const PeftAdapterConfig::PatternValue*> PeftAdapterConfig::FirstMatch(
    const std::vector<PatternValue>& patterns, std::string_view field, std::string_view module) {
  for (const PatternValue& pattern : patterns) {
    const absl::StatusOr<bool> matched = pattern.regex.FullMatch(module);
    if (!matched.ok()) {
      return InvalidField(fmt::format("{}.{}", field, pattern.key), Message(matched.status()));
    }
    if (*matched) return &pattern;
  }
  return nullptr;
}

absl::StatusOr<int> PeftAdapterConfig::RankOf(std::string_view module) const {
  LORAD_ASSIGN_OR_RETURN(const PatternValue* match,
                         FirstMatch(rank_pattern_, "rank_pattern", module));
  return match != nullptr ? static_cast<int>(match->value) : rank_;
}

absl::StatusOr<double> PeftAdapterConfig::ScaleOf(std::string_view module, int rank) const {
  LORAD_ASSIGN_OR_RETURN(const PatternValue* match,
                         FirstMatch(alpha_pattern_, "alpha_pattern", module));
  const double alpha = match != nullptr ? match->value : alpha_;
  return alpha / (use_rslora_ ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

absl::StatusOr<bool> PeftAdapterConfig::InChosenLayers(std::string_view module) const {
  if (layers_.empty()) return true;
  for (const ModulePattern& pattern : layer_patterns_) {
    std::string text;
    LORAD_ASSIGN_OR_RETURN(const bool matched, pattern.FullMatch(module, "idx", &text));
    if (!matched) continue;
    int index = -1;
    std::from_chars(text.data(), text.data() + text.size(), index);
    return std::find(layers_.begin(), layers_.end(), index) != layers_.end();
  }
  return false;
}

absl::StatusOr<bool> PeftAdapterConfig::Targets(std::string_view module) const {
  const absl::StatusOr<bool> excluded = excluded_.Contains(module);
  if (!excluded.ok()) return InvalidField("exclude_modules", Message(excluded.status()));
  const absl::StatusOr<bool> targeted = targets_.Contains(module);
  if (!targeted.ok()) return InvalidField("target_modules", Message(targeted.status()));
  if (*excluded || !*targeted) return false;
  const absl::StatusOr<bool> chosen = InChosenLayers(module);
  if (!chosen.ok()) return InvalidField("layers_pattern", Message(chosen.status()));
  return chosen;
}

absl::StatusOr<PeftAdapterConfig> ReadPeftAdapterConfig(const std::filesystem::path& dir,
                                                        const AdapterLimits& limits) {
  LORAD_ASSIGN_OR_RETURN(
      const std::string text,
      ReadTextFile(dir / "adapter_config.json", {.max_bytes = limits.max_config_bytes}));
  return PeftAdapterConfig::Parse(text, limits);
}

}  // namespace lorad
