#include "model/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/json.h"
#include "model/mapped_file.h"
#include "model/rope_frequencies.h"

namespace lorad {
namespace {

constexpr char kUnsupported[] = "MODEL_UNSUPPORTED_FIELD";
constexpr FileRules kConfigRules{.max_bytes = 4 << 20, .follow_symlinks = true};

// Generous, and small enough that no product of two of them overflows an int64.
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxLayers = 1024;
constexpr int kMaxHeads = 1024;
constexpr int kMaxHeadDim = 1024;
constexpr int kMaxPositions = 1 << 28;
constexpr size_t kMaxEosTokens = 256;

// What the model class of transformers assumes when a field is absent.
struct Family {
  std::string_view architecture;
  std::string_view model_type;
  int max_positions;
  int kv_heads;  // 0: as many as heads
  int head_dim;  // 0: hidden_size / heads
};

constexpr std::array<Family, 4> kFamilies = {{
    {"LlamaForCausalLM", "llama", 2048, 0, 0},
    {"MistralForCausalLM", "mistral", 131072, 8, 0},
    {"Qwen2ForCausalLM", "qwen2", 32768, 32, 0},
    {"Qwen3ForCausalLM", "qwen3", 32768, 32, 128},
}};

// Fields that say nothing about the next-token mathematics of these four families: where the file
// came from, how it was trained, how libraries run it, defaults for sampling, and options of other
// heads.
constexpr std::string_view kHarmless[] = {"_name_or_path",
                                          "name_or_path",
                                          "_commit_hash",
                                          "transformers_version",
                                          "unsloth_version",
                                          "unsloth_fixed",
                                          "is_llama_config",
                                          "transformers.js_config",
                                          "torch_dtype",
                                          "dtype",
                                          "_attn_implementation",
                                          "attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_flash_attn_2_enabled",
                                          "_experts_implementation",
                                          "use_cache",
                                          "return_dict",
                                          "use_return_dict",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "torchscript",
                                          "gradient_checkpointing",
                                          "attention_dropout",
                                          "hidden_dropout",
                                          "resid_pdrop",
                                          "embd_pdrop",
                                          "attn_pdrop",
                                          "initializer_range",
                                          "pretraining_tp",
                                          "tensor_parallel_size",
                                          "is_decoder",
                                          "id2label",
                                          "label2id",
                                          "num_labels",
                                          "problem_type",
                                          "task_specific_params",
                                          "finetuning_task",
                                          "chunk_size_feed_forward",
                                          "pad_token_id",
                                          "unk_token_id",
                                          "sep_token_id",
                                          "decoder_start_token_id",
                                          "temperature",
                                          "top_p",
                                          "top_k",
                                          "typical_p",
                                          "do_sample",
                                          "max_length",
                                          "min_length",
                                          "max_new_tokens",
                                          "num_beams",
                                          "num_beam_groups",
                                          "num_return_sequences",
                                          "length_penalty",
                                          "repetition_penalty",
                                          "diversity_penalty",
                                          "early_stopping",
                                          "tokenizer_class",
                                          "prefix",
                                          "begin_suppress_tokens"};

absl::StatusOr<Family> FindFamily(JsonFields& fields) {
  LORAD_RETURN_IF_ERROR(fields.FinishPartial());  // is it an object at all
  std::string architecture;
  if (const JsonValue* list = fields.Get("architectures"); list != nullptr) {
    const bool usable = list->array() != nullptr && list->array()->size() == 1 &&
                        list->array()->front().string() != nullptr;
    if (!usable) return InvalidField("architectures", "must be a list of one name");
    architecture = *list->array()->front().string();
  }
  const std::string model_type = fields.String("model_type", "");
  for (const Family& family : kFamilies) {
    if (!architecture.empty() && family.architecture != architecture) continue;
    if (!model_type.empty() && family.model_type != model_type) continue;
    if (architecture.empty() && model_type.empty()) continue;
    return family;
  }
  return WithReason(
      WithField(absl::UnimplementedError(fmt::format(
                    "architectures: \"{}\" (model_type \"{}\") is none of LlamaForCausalLM, "
                    "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM",
                    architecture, model_type)),
                "architectures"),
      kUnsupported);
}

void ReadSizes(JsonFields& fields, const Family& family, ModelConfig& config) {
  const auto size = [&](std::string_view name, int high, std::optional<int64_t> fallback = {}) {
    return static_cast<int>(fields.Int(name, 1, high, fallback));
  };
  config.vocab_size = size("vocab_size", kMaxVocab);
  config.hidden_size = size("hidden_size", kMaxWidth);
  config.layers = size("num_hidden_layers", kMaxLayers);
  config.heads = size("num_attention_heads", kMaxHeads);
  config.ffn_size = size("intermediate_size", kMaxWidth);
  // An explicit null means one key head for each query head, in every family.
  const bool has_kv_heads = fields.Contains("num_key_value_heads");
  const int kv_default = !has_kv_heads && family.kv_heads > 0 ? family.kv_heads : config.heads;
  config.kv_heads = size("num_key_value_heads", kMaxHeads, kv_default);
  const int derived = std::max(config.hidden_size / std::max(config.heads, 1), 1);
  config.head_dim = size("head_dim", kMaxHeadDim, family.head_dim > 0 ? family.head_dim : derived);
  if (!fields.Has("head_dim") && family.head_dim == 0 && config.hidden_size % config.heads != 0) {
    fields.Invalid("hidden_size", "must be a multiple of num_attention_heads");
  }
  if (config.heads % config.kv_heads != 0) {
    fields.Invalid("num_key_value_heads", "must divide num_attention_heads");
  }
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    fields.Invalid("head_dim", fmt::format("must be even and at most {}", kMaxHeadDim));
  }
  config.max_positions = size("max_position_embeddings", kMaxPositions, family.max_positions);
  // Models that were stretched by linear scaling keep the old length in max_position_embeddings and
  // the new one here.
  config.max_positions = std::max(config.max_positions,
                                  size("max_sequence_length", kMaxPositions, config.max_positions));
  config.rms_norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 0.0, 1.0, 1e-6));
}

void ReadSwitches(JsonFields& fields, const Family& family, ModelConfig& config) {
  config.tie_embeddings = fields.Bool("tie_word_embeddings", false);
  const std::string activation = fields.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.Unsupported("hidden_act", fmt::format("\"{}\" is not silu", activation));
  }
  if (fields.Bool("is_encoder_decoder", false))
    fields.Unsupported("is_encoder_decoder", "must be false");
  // Llama and Qwen3 have the switch; Qwen2's biases and Mistral's lack of them are fixed, so that
  // there a set switch is an unknown field.
  if (family.model_type == "llama" || family.model_type == "qwen3") {
    config.qkv_bias = config.output_bias = fields.Bool("attention_bias", false);
  } else {
    config.qkv_bias = family.model_type == "qwen2";
  }
  if (family.model_type == "llama") config.mlp_bias = fields.Bool("mlp_bias", false);
  config.qk_norm = family.model_type == "qwen3";
}

enum class LayerTypes { kAbsent, kAllFull, kAllSliding, kMixed };

LayerTypes ReadLayerTypes(JsonFields& fields, int layers) {
  const JsonValue* value = fields.Get("layer_types");
  if (value == nullptr) return LayerTypes::kAbsent;
  const JsonValue::Array* list = value->array();
  if (list == nullptr || list->size() != static_cast<size_t>(layers)) {
    fields.Invalid("layer_types", "must be a list with one entry a layer");
    return LayerTypes::kMixed;
  }
  size_t full = 0;
  size_t sliding = 0;
  for (const JsonValue& entry : *list) {
    if (entry.string() == nullptr) continue;
    full += *entry.string() == "full_attention";
    sliding += *entry.string() == "sliding_attention";
  }
  if (full == list->size()) return LayerTypes::kAllFull;
  if (sliding == list->size()) return LayerTypes::kAllSliding;
  fields.Unsupported("layer_types",
                     "must be full_attention for all layers, or sliding_attention for all");
  return LayerTypes::kMixed;
}

// lorad has one attention window for the whole model, so a model whose layers differ is refused.
void ReadWindow(JsonFields& fields, const Family& family, ModelConfig& config) {
  const LayerTypes types = ReadLayerTypes(fields, config.layers);
  if (family.model_type == "mistral") {
    const bool has_window = fields.Contains("sliding_window");
    config.sliding_window =
        static_cast<int>(fields.Int("sliding_window", 1, kMaxPositions, has_window ? 0 : 4096));
    if ((types == LayerTypes::kAllFull && config.sliding_window > 0) ||
        (types == LayerTypes::kAllSliding && config.sliding_window == 0)) {
      fields.Invalid("layer_types", "contradicts sliding_window");
    }
    return;
  }
  if (family.model_type ==
      "llama") {  // knows no window: a sliding_window that is set is refused as unknown
    if (types == LayerTypes::kAllSliding)
      fields.Unsupported("layer_types", "must be full_attention");
    return;
  }
  const bool use_window = fields.Bool("use_sliding_window", false);
  const int64_t window =
      fields.Int("sliding_window", 0, kMaxPositions, fields.Contains("sliding_window") ? 0 : 4096);
  const int64_t first_sliding = fields.Int("max_window_layers", 0, kMaxPositions, 28);
  const bool sliding = use_window && window > 0;
  if (types == LayerTypes::kAllSliding && !sliding) {
    fields.Invalid("layer_types", "contradicts use_sliding_window");
  }
  if (!sliding || types == LayerTypes::kAllFull) return;
  if (types == LayerTypes::kAllSliding || (types == LayerTypes::kAbsent && first_sliding == 0)) {
    config.sliding_window = static_cast<int>(window);
  } else if (types == LayerTypes::kAbsent && first_sliding < config.layers) {
    fields.Unsupported(
        "use_sliding_window",
        fmt::format("layers {} and up would have a window and those before would not",
                    first_sliding));
  }
}

void ReadTokenIds(JsonFields& fields, ModelConfig& config) {
  const auto read_id = [&](std::string_view name, const JsonValue& value) {
    const std::optional<int64_t> id = value.integer();
    if (id.has_value() && *id >= 0 && *id < config.vocab_size) return static_cast<int32_t>(*id);
    fields.Invalid(name, fmt::format("must be token ids from 0 to {}", config.vocab_size - 1));
    return int32_t{-1};
  };
  if (const JsonValue* eos = fields.Get("eos_token_id"); eos != nullptr) {
    const JsonValue::Array one = {*eos};
    const JsonValue::Array& ids = eos->array() != nullptr ? *eos->array() : one;
    if (ids.size() > kMaxEosTokens) {
      return fields.Invalid("eos_token_id", fmt::format("has more than {} ids", kMaxEosTokens));
    }
    for (const JsonValue& value : ids) {
      const int32_t id = read_id("eos_token_id", value);
      auto& known = config.eos_token_ids;
      if (std::find(known.begin(), known.end(), id) == known.end()) known.push_back(id);
    }
  }
  const JsonValue* bos = fields.Get("bos_token_id");
  if (bos != nullptr && config.bos_token_id < 0)
    config.bos_token_id = read_id("bos_token_id", *bos);
}

absl::StatusOr<JsonValue> ParseFile(std::string_view file, std::string_view text) {
  absl::StatusOr<JsonValue> json = JsonValue::Parse(text);
  if (json.ok()) return json;
  const auto message = json.status().message();
  return InvalidField(file, std::string_view(message.data(), message.size()));
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json) {
  LORAD_ASSIGN_OR_RETURN(const JsonValue json, ParseFile("config.json", config_json));
  JsonFields fields(json);
  LORAD_ASSIGN_OR_RETURN(const Family family, FindFamily(fields));
  ModelConfig config;
  config.architecture = family.architecture;
  ReadSizes(fields, family, config);
  ReadSwitches(fields, family, config);
  ReadWindow(fields, family, config);
  ReadTokenIds(fields, config);
  const RopeParameters rope = ReadRopeParameters(fields, config.max_positions);
  for (const std::string_view name : kHarmless) fields.Ignore(name);
  LORAD_RETURN_IF_ERROR(fields.Finish(kUnsupported));
  config.inv_freq = InverseFrequencies(rope, config.head_dim);

  if (!generation_config_json.empty()) {
    LORAD_ASSIGN_OR_RETURN(const JsonValue generation,
                           ParseFile("generation_config.json", generation_config_json));
    JsonFields defaults(generation, "generation_config.");
    ReadTokenIds(defaults, config);
    LORAD_RETURN_IF_ERROR(defaults.FinishPartial());
  }
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir) {
  absl::StatusOr<std::string> config = ReadTextFile(model_dir / "config.json", kConfigRules);
  if (absl::IsNotFound(config.status())) {
    return absl::NotFoundError(
        fmt::format("model folder {} has no config.json", model_dir.string()));
  }
  LORAD_RETURN_IF_ERROR(config.status());
  absl::StatusOr<std::string> generation =
      ReadTextFile(model_dir / "generation_config.json", kConfigRules);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  return ParseModelConfig(*config, generation.ok() ? *generation : std::string());
}

}  // namespace lorad
