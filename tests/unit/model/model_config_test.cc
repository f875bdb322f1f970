#include "model/model_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>

#include "memory/base/error_detail.h"
#include "tests/unit/model/safetensors_writer.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Configs as the models' publishers wrote them.
constexpr char kLlama2[] = R"({
  "_name_or_path": "meta-llama/Llama-2-7b-chat-hf", "architectures": ["LlamaForCausalLM"],
  "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
  "max_length": 4096, "max_position_embeddings": 4096, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
  "pad_token_id": 0, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
  "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.32.0.dev0",
  "use_cache": true, "vocab_size": 32000})";

constexpr char kLlama31[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
  "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})";

constexpr char kLlama32[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu",
  "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
  "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})";

constexpr char kSmolLm2[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
  "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
  "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
  "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
  "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152})";

constexpr char kMistral01[] = R"({
  "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
  "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0",
  "use_cache": true, "vocab_size": 32000})";

constexpr char kMistral03[] = R"({
  "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
  "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
  "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.0.dev0",
  "use_cache": true, "vocab_size": 32768})";

constexpr char kMistralNemo[] = R"({
  "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
  "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
  "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
  "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
  "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 131072})";

constexpr char kQwen25[] = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
  "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
  "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.1", "use_cache": true, "use_mrope": false,
  "use_sliding_window": false, "vocab_size": 151936})";

constexpr char kQwen3[] = R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
  "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
  "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
  "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
  "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
  "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";

// As transformers 5 saves it.
constexpr char kQwen3New[] = R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": null, "dtype": "bfloat16", "eos_token_id": null, "head_dim": 8,
  "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64,
  "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 64,
  "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 4,
  "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": null, "rms_norm_eps": 1e-06,
  "rope_parameters": {"rope_theta": 5000000.0, "rope_type": "default"}, "sliding_window": null,
  "tie_word_embeddings": false, "transformers_version": "5.2.0", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 100})";

ModelConfig Parsed(const std::string& config, const std::string& generation = "") {
  auto parsed = ParseModelConfig(config, generation);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig();
}

TEST(ModelConfig, ReadsLlama) {
  const ModelConfig llama2 = Parsed(kLlama2);
  EXPECT_EQ(llama2.architecture, "LlamaForCausalLM");
  EXPECT_EQ(llama2.layers, 32);
  EXPECT_EQ(llama2.head_dim, 128);
  EXPECT_EQ(llama2.kv_heads, 32);
  EXPECT_EQ(llama2.ffn_size, 11008);
  EXPECT_EQ(llama2.max_positions, 4096);
  EXPECT_EQ(llama2.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(llama2.tie_embeddings || llama2.qkv_bias || llama2.output_bias || llama2.mlp_bias ||
               llama2.qk_norm);
  EXPECT_EQ(llama2.sliding_window, 0);
  EXPECT_EQ(llama2.bos_token_id, 1);
  EXPECT_THAT(llama2.eos_token_ids, ElementsAre(2));

  const ModelConfig llama31 = Parsed(kLlama31);
  EXPECT_EQ(llama31.kv_heads, 8);
  EXPECT_EQ(llama31.max_positions, 131072);
  EXPECT_THAT(llama31.eos_token_ids, ElementsAre(128001, 128008, 128009));

  const ModelConfig llama32 = Parsed(kLlama32);
  EXPECT_EQ(llama32.head_dim, 64);
  EXPECT_TRUE(llama32.tie_embeddings);
  EXPECT_EQ(Parsed(kSmolLm2).head_dim, 64);
}

TEST(ModelConfig, ReadsMistral) {
  EXPECT_EQ(Parsed(kMistral01).sliding_window, 4096);
  EXPECT_EQ(Parsed(kMistral03).sliding_window, 0);
  const ModelConfig nemo = Parsed(kMistralNemo);
  EXPECT_EQ(nemo.head_dim, 128);
  EXPECT_EQ(nemo.q_size(), 4096);
  EXPECT_FALSE(nemo.qkv_bias);
}

TEST(ModelConfig, ReadsQwen) {
  const ModelConfig qwen2 = Parsed(kQwen25);
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias || qwen2.mlp_bias || qwen2.qk_norm);
  EXPECT_EQ(qwen2.sliding_window, 0);
  EXPECT_EQ(qwen2.head_dim, 64);

  const ModelConfig qwen3 = Parsed(kQwen3);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
  EXPECT_EQ(qwen3.q_size(), 2048);
  EXPECT_EQ(Parsed(kQwen3New).head_dim, 8);
  EXPECT_EQ(Parsed(kQwen3New).bos_token_id, -1);
}

TEST(ModelConfig, ReadsTheDemoModel) {
  const char* source = std::getenv("LORAD_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "run by ctest, or set LORAD_SOURCE_DIR";
  const auto config = LoadModelConfig(std::filesystem::path(source) / "demo/model");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(static_cast<int>(config->inv_freq.size()) * 2, config->head_dim);
}

// The least that a Llama config needs, and more fields after it. Later fields cannot repeat earlier
// ones.
std::string Small(std::string_view more = "", std::string_view family = "Llama") {
  std::string lower(family);
  lower[0] = static_cast<char>(lower[0] + 32);
  return fmt::format(
      R"({{"architectures":["{}ForCausalLM"],"model_type":"{}","vocab_size":100,"hidden_size":64,)"
      R"("num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":96{}{}}})",
      family, lower, more.empty() ? "" : ",", more);
}

TEST(ModelConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig llama = Parsed(Small());
  EXPECT_EQ(llama.kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 32);
  EXPECT_EQ(llama.max_positions, 2048);
  EXPECT_EQ(llama.rms_norm_eps, 1e-6f);
  EXPECT_FALSE(llama.tie_embeddings);
  EXPECT_TRUE(llama.eos_token_ids.empty());
  EXPECT_EQ(llama.bos_token_id, -1);
  // Absent and null differ: Mistral's default window is 4096, and its default of 8 key heads does
  // not divide 2.
  EXPECT_THAT(Message(ParseModelConfig(Small("", "Mistral")).status()),
              HasSubstr("num_key_value_heads"));
  EXPECT_EQ(Parsed(Small(R"("num_key_value_heads":null)", "Mistral")).kv_heads, 2);
  EXPECT_EQ(Parsed(Small(R"("num_key_value_heads":2)", "Mistral")).sliding_window, 4096);
  EXPECT_EQ(Parsed(Small(R"("num_key_value_heads":2,"head_dim":null)", "Qwen3")).head_dim, 128);
}

TEST(ModelConfig, BiasSwitches) {
  const ModelConfig config = Parsed(Small(R"("attention_bias":true,"mlp_bias":true)"));
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
  const ModelConfig qwen3 =
      Parsed(Small(R"("attention_bias":true,"num_key_value_heads":1)", "Qwen3"));
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.output_bias);
}

TEST(ModelConfig, QwenWindowOnlyIfItCoversTheWholeModel) {
  const std::string window =
      R"("num_key_value_heads":2,"use_sliding_window":true,"sliding_window":16)";
  EXPECT_EQ(Parsed(Small(window + R"(,"max_window_layers":0)", "Qwen2")).sliding_window, 16);
  EXPECT_EQ(Parsed(Small(window + R"(,"max_window_layers":2)", "Qwen2")).sliding_window, 0);
  const absl::Status mixed =
      ParseModelConfig(Small(window + R"(,"max_window_layers":1)", "Qwen2")).status();
  EXPECT_EQ(mixed.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(GetErrorDetail(mixed).field, "use_sliding_window");
  const std::string types = R"(,"layer_types":["sliding_attention","sliding_attention"])";
  EXPECT_EQ(Parsed(Small(window + types, "Qwen2")).sliding_window, 16);
}

TEST(ModelConfig, GenerationConfigAddsStopTokens) {
  const ModelConfig config =
      Parsed(Small(R"("eos_token_id":5)"),
             R"({"bos_token_id":1,"eos_token_id":[5,7],"temperature":0.6,"unheard_of":true})");
  EXPECT_THAT(config.eos_token_ids, ElementsAre(5, 7));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(GetErrorDetail(ParseModelConfig(Small(), R"({"eos_token_id":"x"})").status()).field,
            "generation_config.eos_token_id");
  EXPECT_THAT(Message(ParseModelConfig(Small(), "{").status()),
              HasSubstr("generation_config.json"));
}

TEST(ModelConfig, LoadsFromAFolder) {
  const TemporaryFolder folder;
  EXPECT_EQ(LoadModelConfig(folder.path()).status().code(), absl::StatusCode::kNotFound);
  folder.Write("config.json", Small());
  ASSERT_TRUE(LoadModelConfig(folder.path()).ok());
  folder.Write("generation_config.json", R"({"eos_token_id":9})");
  EXPECT_THAT(LoadModelConfig(folder.path())->eos_token_ids, ElementsAre(9));
}

// --- Rope ---

int64_t UlpDistance(float a, float b) {
  return std::abs(int64_t{std::bit_cast<int32_t>(a)} - int64_t{std::bit_cast<int32_t>(b)});
}

void ExpectFrequencies(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    // Power functions of good libraries differ by an ulp; scaling rounds a few times more.
    EXPECT_LE(UlpDistance(actual[i], expected[i]), 2)
        << i << ": " << actual[i] << " " << expected[i];
  }
}

// Expected values: transformers 5.23 on fp32 tensors.
TEST(RopeFrequencies, Default) {
  const std::vector<float> expected = {
      1.0f,           0.562341332f,    0.316227764f,    0.177827939f,
      0.100000001f,   0.0562341288f,   0.0316227786f,   0.0177827943f,
      0.00999999978f, 0.00562341325f,  0.00316227786f,  0.00177827943f,
      0.00100000005f, 0.000562341302f, 0.000316227786f, 0.00017782794f};
  ExpectFrequencies(Parsed(Small()).inv_freq, expected);
  ExpectFrequencies(Parsed(Small(R"("rope_scaling":{"type":"default"})")).inv_freq, expected);
}

TEST(RopeFrequencies, ThetaOfTheDictionaryGoesFirst) {
  const std::vector<float> expected = {
      1.0f,           0.177827939f,   0.0316227786f,   0.00562341325f,
      0.00100000005f, 0.00017782794f, 3.16227743e-05f, 5.62341347e-06f};
  ExpectFrequencies(Parsed(Small(R"("head_dim":16,"rope_theta":1000000)")).inv_freq, expected);
  ExpectFrequencies(Parsed(Small(R"("head_dim":16,"rope_theta":77,"rope_parameters":)"
                                 R"({"rope_type":"default","rope_theta":1000000.0})"))
                        .inv_freq,
                    expected);
}

TEST(RopeFrequencies, Linear) {
  const std::vector<float> expected = {0.25f,           0.079056941f,   0.0250000004f,
                                       0.00790569466f,  0.00249999994f, 0.000790569466f,
                                       0.000250000012f, 7.90569466e-05f};
  ExpectFrequencies(
      Parsed(Small(R"("head_dim":16,"rope_scaling":{"type":"linear","factor":4.0})")).inv_freq,
      expected);
}

TEST(RopeFrequencies, Llama3) {
  const std::vector<float> expected = {1.0f,
                                       0.440366626f,
                                       0.193922758f,
                                       0.0853971019f,
                                       0.0376060307f,
                                       0.0165604409f,
                                       0.00729266508f,
                                       0.00321144611f,
                                       0.000524846022f,
                                       7.78465546e-05f,
                                       3.42810235e-05f,
                                       1.50962178e-05f,
                                       6.64786967e-06f,
                                       2.92749974e-06f,
                                       1.28917316e-06f,
                                       5.6770881e-07f};
  const char* scaling = R"({"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
                        R"("original_max_position_embeddings":8192,"rope_type":"llama3"})";
  ExpectFrequencies(
      Parsed(Small(fmt::format(R"("rope_theta":500000.0,"rope_scaling":{})", scaling))).inv_freq,
      expected);
  ExpectFrequencies(
      Parsed(Small(fmt::format(R"("rope_parameters":{},"rope_theta":500000.0)", scaling))).inv_freq,
      expected);
}

// --- Refusals ---

struct Refusal {
  std::string config;
  std::string field;
  absl::StatusCode code = absl::StatusCode::kUnimplemented;
};

class ModelConfigRefuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(ModelConfigRefuses, ByName) {
  const absl::Status status = ParseModelConfig(GetParam().config).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_EQ(GetErrorDetail(status).field, GetParam().field) << status;
  EXPECT_THAT(Message(status), HasSubstr(GetParam().field));
  if (status.code() == absl::StatusCode::kUnimplemented) {
    EXPECT_EQ(GetErrorDetail(status).reason, "MODEL_UNSUPPORTED_FIELD");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Mathematics, ModelConfigRefuses,
    ::testing::Values(
        Refusal{Small(R"("hidden_act":"gelu")"), "hidden_act"},
        Refusal{Small(R"("quantization_config":{"bits":4})"), "quantization_config"},
        Refusal{Small(R"("rope_scaling":{"rope_type":"yarn","factor":4.0})"),
                "rope_scaling.rope_type"},
        Refusal{Small(R"("rope_scaling":{"type":"dynamic","factor":4.0})"), "rope_scaling.type"},
        Refusal{Small(R"("rope_parameters":{"rope_type":"longrope"})"),
                "rope_parameters.rope_type"},
        Refusal{Small(R"("rope_scaling":{"type":"default","mrope_section":[1]})"),
                "rope_scaling.mrope_section"},
        Refusal{Small(R"("rope_parameters":{"full_attention":{"rope_theta":5.0}})"),
                "rope_parameters.full_attention"},
        Refusal{Small(R"("partial_rotary_factor":0.5)"), "partial_rotary_factor"},
        Refusal{Small(R"("rope_parameters":{"partial_rotary_factor":0.25})"),
                "rope_parameters.partial_rotary_factor"},
        Refusal{Small(R"("rope_interleaved":true)"), "rope_interleaved"},
        Refusal{Small(R"("layer_types":["full_attention","sliding_attention"])"), "layer_types"},
        Refusal{Small(R"("layer_types":["sliding_attention","sliding_attention"])"), "layer_types"},
        Refusal{Small(R"("sliding_window":128)"), "sliding_window"},
        Refusal{Small(R"("num_local_experts":8)"), "num_local_experts"},
        Refusal{Small(R"("is_encoder_decoder":true)"), "is_encoder_decoder"},
        Refusal{Small(R"("auto_map":{"AutoModel":"x.Y"})"), "auto_map"},
        Refusal{Small(R"("attention_bias":true,"num_key_value_heads":2)", "Mistral"),
                "attention_bias"},
        Refusal{Small(R"("some_new_trick":1.5)"), "some_new_trick"},
        Refusal{Small(R"("":1)"), "\"\""},
        Refusal{R"({"architectures":["GemmaForCausalLM"]})", "architectures"},
        Refusal{R"({"architectures":["LlamaForCausalLM"],"model_type":"qwen2"})", "architectures"},
        Refusal{R"({})", "architectures"}));

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    Values, ModelConfigRefuses,
    ::testing::Values(
        Refusal{"", "config.json", kInvalid}, Refusal{"[]", "file", kInvalid},
        Refusal{R"({"vocab_size":1,"vocab_size":2})", "config.json", kInvalid},
        Refusal{R"({"architectures":[]})", "architectures", kInvalid},
        Refusal{R"({"model_type":"llama"})", "vocab_size", kInvalid},
        Refusal{Small(R"("num_key_value_heads":0)"), "num_key_value_heads", kInvalid},
        Refusal{Small(R"("num_key_value_heads":-1)"), "num_key_value_heads", kInvalid},
        Refusal{Small(R"("num_key_value_heads":3)"), "num_key_value_heads", kInvalid},
        Refusal{Small(R"("num_key_value_heads":"2")"), "num_key_value_heads", kInvalid},
        Refusal{Small(R"("head_dim":33)"), "head_dim", kInvalid},
        Refusal{Small(R"("head_dim":2048)"), "head_dim", kInvalid},
        Refusal{Small(R"("head_dim":1e3)"), "head_dim", kInvalid},
        Refusal{Small(R"("max_position_embeddings":9223372036854775807)"),
                "max_position_embeddings", kInvalid},
        Refusal{Small(R"("max_position_embeddings":18446744073709551615)"),
                "max_position_embeddings", kInvalid},
        Refusal{Small(R"("rms_norm_eps":-1.0)"), "rms_norm_eps", kInvalid},
        Refusal{Small(R"("rms_norm_eps":"1e-5")"), "rms_norm_eps", kInvalid},
        Refusal{Small(R"("tie_word_embeddings":1)"), "tie_word_embeddings", kInvalid},
        Refusal{Small(R"("eos_token_id":100)"), "eos_token_id", kInvalid},
        Refusal{Small(R"("eos_token_id":[1,-1])"), "eos_token_id", kInvalid},
        Refusal{Small(R"("eos_token_id":{})"), "eos_token_id", kInvalid},
        Refusal{Small(R"("bos_token_id":1.5)"), "bos_token_id", kInvalid},
        Refusal{Small(R"("rope_theta":0)"), "rope_theta", kInvalid},
        Refusal{Small(R"("rope_theta":1e300)"), "rope_theta", kInvalid},
        Refusal{Small(R"("rope_scaling":{"type":"linear"})"), "rope_scaling.factor", kInvalid},
        Refusal{Small(R"("rope_scaling":{"type":"linear","factor":0.0})"), "rope_scaling.factor",
                kInvalid},
        Refusal{Small(R"("rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":4.0,)"
                      R"("high_freq_factor":4.0})"),
                "rope_scaling.high_freq_factor", kInvalid},
        Refusal{Small(R"("rope_scaling":"linear")"), "rope_scaling", kInvalid},
        Refusal{Small(R"("rope_scaling":{"type":"linear","factor":2.0},)"
                      R"("rope_parameters":{"rope_type":"default"})"),
                "rope_scaling", kInvalid},
        Refusal{Small(R"("layer_types":["full_attention"])"), "layer_types", kInvalid},
        Refusal{Small(R"("sliding_window":0,"num_key_value_heads":2)", "Mistral"), "sliding_window",
                kInvalid}));

}  // namespace
}  // namespace lorad
