#include "server/sequence.h"

#include <algorithm>
#include <utility>

namespace lorad {

Sequence::Sequence(RequestId id_in, std::unique_ptr<GenerationRequest> request_in, PagePool* pool,
                   const Tokenizer* tokenizer, int vocab_size)
    : id(id_in),
      request(std::move(request_in)),
      tokens(request->prompt),
      pages(pool, PageUse::kKv),
      priority(request->priority),
      sampler(request->sampling, request->prompt, vocab_size),
      text(request->want_text ? tokenizer : nullptr, request->stop_strings,
           request->include_stop_string) {
  tokens.reserve(request->prompt.size() + static_cast<size_t>(request->max_tokens));
  if (request->score) {
    score_targets.assign(tokens.size(), -1);
    for (size_t i = static_cast<size_t>(std::max(1, request->score_from)); i < tokens.size(); ++i) {
      score_targets[i - 1] = tokens[i];
    }
  }
}

StreamEnd Sequence::End(absl::Status status, FinishReason reason, TimePoint now) const {
  StreamEnd end;
  end.status = std::move(status);
  end.reason = reason;
  end.matched_stop = text.matched_stop();
  if (reason == FinishReason::kStopToken && !tokens.empty()) end.stop_token = tokens.back();
  end.usage = {.prompt_tokens = static_cast<int>(request->prompt.size()),
               .cached_tokens = cached_tokens,
               .output_tokens = output_tokens()};
  end.timings.queue = (admitted_before ? first_admission : now) - request->arrival;
  end.timings.adapter_load = adapter_load;
  if (output_tokens() > 0) end.timings.first_token = first_token - request->arrival;
  end.timings.total = now - request->arrival;
  end.timings.preemptions = preemptions;
  return end;
}

}  // namespace lorad
