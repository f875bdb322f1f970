// Whatever the text, ParseModelConfig either refuses it with a field, or gives sizes that can be
// computed with.
#include <algorithm>
#include <cmath>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "model/model_config.h"
#include "model/sites.h"
#include "tests/fuzz/fuzz_target.h"

namespace lorad {
namespace {

void CheckPromises(const ModelConfig& c) {
  LORAD_CHECK(c.vocab_size > 0 && c.hidden_size > 0 && c.layers > 0 && c.ffn_size > 0);
  LORAD_CHECK(c.heads > 0 && c.kv_heads > 0 && c.heads % c.kv_heads == 0);
  LORAD_CHECK(c.head_dim > 0 && c.head_dim % 2 == 0 && c.max_positions > 0);
  LORAD_CHECK(c.qkv_size() > c.q_size() && SiteCount(c) > 0);
  LORAD_CHECK(std::isfinite(c.rms_norm_eps) && c.rms_norm_eps >= 0 && c.sliding_window >= 0);
  LORAD_CHECK(c.inv_freq.size() == static_cast<size_t>(c.head_dim) / 2);
  for (const float f : c.inv_freq) LORAD_CHECK(std::isfinite(f) && f >= 0 && f <= 1);
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && id < c.vocab_size; };
  LORAD_CHECK(std::all_of(c.eos_token_ids.begin(), c.eos_token_ids.end(), in_vocabulary));
  LORAD_CHECK(c.bos_token_id == -1 || in_vocabulary(c.bos_token_id));
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":128256,
              "hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,
              "num_key_value_heads":8,"intermediate_size":14336,"max_position_embeddings":131072,
              "rms_norm_eps":1e-05,"rope_theta":500000.0,"eos_token_id":[128001,128009],
              "rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
                              "original_max_position_embeddings":8192,"rope_type":"llama3"}})",
          R"({"architectures":["MistralForCausalLM"],"vocab_size":32000,"hidden_size":64,
              "num_hidden_layers":2,"num_attention_heads":8,"intermediate_size":96,"head_dim":16,
              "sliding_window":4096,"bos_token_id":1,"eos_token_id":2,"hidden_act":"silu"})",
          R"({"model_type":"qwen2","vocab_size":1000,"hidden_size":64,"num_hidden_layers":2,
              "num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":96,
              "use_sliding_window":true,"sliding_window":16,"max_window_layers":0,
              "tie_word_embeddings":true})",
          R"({"architectures":["Qwen3ForCausalLM"],"vocab_size":1000,"hidden_size":64,
              "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
              "intermediate_size":96,"layer_types":["full_attention","full_attention"],
              "rope_parameters":{"rope_type":"linear","factor":2.0,"rope_theta":1000000}})"};
}

std::vector<std::string> FuzzDictionary() {
  return {"\"head_dim\":3,",
          "\"head_dim\":1024,",
          "\"rope_theta\":1e12,",
          "\"factor\":1e6,",
          "\"quantization_config\":{\"a\":1},",
          "\"num_key_value_heads\":null,",
          "null",
          "[]",
          "{}",
          "\"yarn\"",
          "\"sliding_attention\"",
          "true",
          "1e-46",
          "\xff",
          "\\ud800",
          "[[[["};
}

}  // namespace lorad

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = lorad::ParseModelConfig(text);
  if (config.ok()) {
    lorad::CheckPromises(*config);
    return lorad::kFuzzAccepted;
  }
  LORAD_CHECK(!lorad::GetErrorDetail(config.status()).field.empty());
  return lorad::kFuzzRefused;
}
