#include "server/model_facts.h"

#include "kernels/quantise.h"
#include "model/sites.h"
#include "server/reply.h"
#include "server/version.h"

namespace lorad {

v1::Model DescribeModel(const ModelFacts& facts) {
  const ModelConfig& m = facts.model;
  const Config& c = facts.config;
  v1::Model out;
  out.set_name(c.model_name);
  out.set_architecture(m.architecture);
  out.set_parameters(facts.parameters);
  out.set_layers(m.layers);
  out.set_hidden_size(m.hidden_size);
  out.set_ffn_size(m.ffn_size);
  out.set_heads(m.heads);
  out.set_kv_heads(m.kv_heads);
  out.set_head_dim(m.head_dim);
  out.set_vocab_size(m.vocab_size);
  out.set_max_context_tokens(facts.max_model_len);
  for (int32_t id : m.eos_token_ids) out.add_eos_token_ids(id);
  if (m.bos_token_id >= 0) out.set_bos_token_id(m.bos_token_id);
  for (const Projection& p : Projections(m)) out.add_adaptable_modules(std::string(p.name));
  out.add_adaptable_modules("lm_head");
  const kernels::WeightFormat format = c.WeightFormat();
  const bool plain = facts.backend == "reference" && format == kernels::WeightFormat::kBf16;
  out.set_weight_dtype(plain ? "f32" : std::string(Name(format)));
  out.set_weight_bytes(static_cast<int64_t>(facts.weight_bytes));
  out.set_tensor_parallel_ranks(c.tensor_parallel);
  out.set_backend(facts.backend.substr(0, facts.backend.find('/')));
  out.set_backend_detail(facts.backend);
  out.mutable_limits()->set_max_running_requests(c.max_running);
  out.mutable_limits()->set_max_waiting_requests(c.max_waiting);
  out.mutable_limits()->set_max_step_tokens(c.max_step_tokens);
  out.mutable_limits()->set_max_rank(c.max_rank);
  out.mutable_limits()->set_max_adapters(c.max_adapters);
  out.mutable_limits()->set_max_upload_bytes(static_cast<int64_t>(c.max_upload_bytes));
  out.mutable_limits()->set_keep_versions(c.keep_versions);
  out.mutable_limits()->set_prefix_cache(c.prefix_cache);
  out.mutable_limits()->set_max_pinned_pages(static_cast<int64_t>(facts.max_pinned_pages));
  out.set_server_version(kVersion);
  SetTimestamp(facts.start, out.mutable_start_time());
  return out;
}

}  // namespace lorad
