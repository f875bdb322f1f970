#include "scheduler/feasibility.h"

#include <algorithm>
#include <cmath>

namespace lorad {
namespace {

// Steps in which sequences must end for a request to find a place and pages, if those before it
// take theirs first. Outputs end evenly spread over twice their mean.
double StepsUntilRoom(const ServiceState& s, const Queued& ahead, const Work& work) {
  const double requests = ahead.requests + 1;
  const double places = requests - (s.max_sequences - s.running);
  const double pages =
      (ahead.tokens + work.prompt_tokens) / s.page_tokens + work.load_pages - s.available_pages;
  const double ends = std::max(places, pages / std::max(1.0, s.pages_per_sequence));
  if (ends <= 0 || s.running == 0) return 0;
  return ends * 2 * s.output_tokens_left / (s.running + 1);
}

// Prompt tokens to be computed before its own.
double TokensAhead(const ServiceState& s, const Queued& ahead, const Work& work) {
  double tokens = ahead.tokens * s.computed_share;
  for (size_t c = 0; c <= static_cast<size_t>(work.priority); ++c) {
    tokens += s.prompt_tokens_left[c];
  }
  return tokens;
}

// `tokens` of a prompt in chunks beside so many decoding sequences.
double PromptSeconds(const ServiceState& s, double tokens, double decoding) {
  const double room = std::max(1.0, s.max_step_tokens - decoding);
  const double chunk = std::min<double>(room, s.max_chunk_tokens);
  const double steps = std::max(1.0, std::ceil(tokens / chunk));
  return steps * s.cost.Seconds(0, decoding) + tokens * s.cost.prompt_row;
}

double OutputSeconds(const Work& work, double step) {
  return std::max(0, work.least_output_tokens - 1) * step;
}

}  // namespace

Forecast Predict(const ServiceState& s, const Queued& ahead, const Work& work) {
  const double load = work.load_pages * s.seconds_per_adapter_page;
  const double own_tokens = work.prompt_tokens * s.computed_share;
  const double tokens_ahead = TokensAhead(s, ahead, work);
  const double room = std::max(1, s.max_step_tokens - s.decoding);
  const double steps = std::max(tokens_ahead / room, StepsUntilRoom(s, ahead, work));

  const double decode = s.cost.Seconds(0, s.decoding + 1);
  const double step = ahead.requests > 0 ? std::max(decode, s.recent_step) : decode;

  Forecast forecast;
  forecast.turn = steps * s.cost.Seconds(0, s.decoding) + tokens_ahead * s.cost.prompt_row;
  forecast.first_token = std::max(forecast.turn, load) + PromptSeconds(s, own_tokens, s.decoding);
  forecast.completion = forecast.first_token + OutputSeconds(work, step);
  forecast.alone.first_token = load + PromptSeconds(s, own_tokens, 0);
  forecast.alone.completion =
      forecast.alone.first_token + OutputSeconds(work, s.cost.Seconds(0, 1));
  return forecast;
}

}  // namespace lorad
