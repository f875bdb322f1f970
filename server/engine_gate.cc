// What the engine tells the gate of the queue (server/admission_gate.h), what it measures for it,
// and whom the gate has it refuse. Engine thread only.
#include <algorithm>

#include "server/engine.h"

namespace lorad {

void Engine::NoteQueue(const Sequence& sequence, AdmissionGate::Change change) {
  queue_changes_.emplace_back(sequence.id, change);
}

void Engine::TellGate() {
  gate_.Update(queue_changes_, TakeServiceState());
  queue_changes_.clear();
}

// REQUIRES: the gate knows the queue as it is, but for what the inbox brings.
void Engine::RefuseHopeless() {
  auto hopeless = gate_.TakeHopeless(now_);
  if (hopeless.empty()) return;
  for (auto& [id, status] : hopeless) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) continue;  // it has just been submitted, or cancelled
    Finish(*found->second, std::move(status), FinishReason::kLength);
  }
  RemoveFinished();
}

ServiceState Engine::TakeServiceState() const {
  ServiceState state{.cost = rates_.cost(),
                     .recent_step = rates_.recent_step(),
                     .trusted = rates_.Trusted(now_),
                     .max_step_tokens = options_.policy.max_step_tokens,
                     .max_chunk_tokens = options_.policy.max_chunk_tokens,
                     .max_sequences = plan_.budget.sequences,
                     .page_tokens = options_.policy.page_tokens,
                     .running = static_cast<int>(running_.size()),
                     .available_pages = static_cast<double>(pool_.available_pages()),
                     .computed_share = rates_.computed_share()};
  if (rates_.LoadsTrusted(now_)) {
    state.seconds_per_adapter_page = pool_.adapters().seconds_per_page();
  }
  if (running_.empty()) return state;
  double outputs = 0, pages = 0;
  for (const auto& s : running_) {
    const int left = s->known_ahead() - s->computed_ahead();
    if (left == 1) {
      ++state.decoding;
    } else {
      state.prompt_tokens_left[static_cast<size_t>(s->request->priority)] += left;
    }
    const double output = s->request->max_tokens * rates_.output_share() - s->output_tokens();
    outputs += std::max(1.0, output);
    pages += static_cast<double>(s->pages.size());
  }
  state.max_step_tokens =
      std::min(state.max_step_tokens, state.decoding + plan_.budget.prompt_tokens);
  state.output_tokens_left = outputs / state.running;
  state.pages_per_sequence = pages / state.running;
  return state;
}

// What a step says of the cost of steps.
void Engine::MeasureRates() {
  rates_.AddStep(report_.prefill_tokens, report_.decode_tokens,
                 Seconds(report_.plan + report_.execute), now_);
  rates_.AddPrompts(report_.queried_tokens, report_.cached_tokens);
}

}  // namespace lorad
