#include "client/loractl/request_options.h"

#include <CLI/CLI.hpp>

#include "client/loractl/terminal.h"
#include "client/priority_name.h"

namespace lorad::loractl {

void RequestOptions::AddTo(CLI::App* app) {
  app->add_option("-n,--max-tokens", max_tokens,
                  "Most tokens to generate [256, or what fits in the context]");
  app->add_option("--min-tokens", min_tokens, "Tokens before any stop token may end the text [0]");
  app->add_option("-t,--temperature", temperature, "0 takes the likeliest token each time [1]");
  app->add_option("--top-k", top_k, "Choose among the K likeliest tokens; 0 is off [0]");
  app->add_option("--top-p", top_p, "Choose among the likeliest tokens of this probability [1]");
  app->add_option("--min-p", min_p, "Leave out tokens below this share of the likeliest [0]");
  app->add_option("--repetition-penalty", repetition_penalty,
                  "Divides the logits of tokens already seen [1]");
  app->add_option("--presence-penalty", presence_penalty, "Subtracted once a token was made [0]");
  app->add_option("--frequency-penalty", frequency_penalty,
                  "Subtracted for each time that a token was made [0]");
  app->add_option("--seed", seed, "Makes the result repeatable [chosen by the server]");
  app->add_option("--stop", stop,
                  "End before this text; repeatable; \\n, \\t and \\xHH are understood")
      ->allow_extra_args(false);
  app->add_option("--stop-token", stop_tokens, "End at this token id; repeatable")
      ->allow_extra_args(false);
  app->add_flag("--ignore-eos", ignore_eos, "Do not end at the model's end-of-sequence tokens");
  app->add_option("--cache-salt", cache_salt,
                  "Share cached prefixes only with requests of the same salt [none]");
  app->add_option("--priority", priority, "How urgent: interactive, standard or batch [standard]")
      ->check(CLI::IsMember(PriorityNames()));
  app->add_flag("--no-special-tokens", no_special_tokens,
                "Do not add beginning-of-sequence and the like to the prompt");
}

v1::GenerateRequest RequestOptions::Request(const std::string& adapter,
                                            const std::string& text) const {
  v1::GenerateRequest request;
  request.set_adapter(adapter);
  request.mutable_prompt()->set_text(text);
  if (no_special_tokens) request.mutable_prompt()->set_add_special_tokens(false);
  if (max_tokens) request.set_max_tokens(*max_tokens);
  if (min_tokens) request.set_min_tokens(*min_tokens);
  if (logprobs) request.set_logprobs(*logprobs);
  for (const std::string& s : stop) request.add_stop(Unescape(s));
  request.mutable_stop_token_ids()->Add(stop_tokens.begin(), stop_tokens.end());
  request.set_ignore_eos(ignore_eos);
  request.set_cache_salt(cache_salt);
  request.set_priority(PriorityNamed(priority));
  v1::SamplingParams* sampling = request.mutable_sampling();
  if (temperature) sampling->set_temperature(*temperature);
  if (top_k) sampling->set_top_k(*top_k);
  if (top_p) sampling->set_top_p(*top_p);
  if (min_p) sampling->set_min_p(*min_p);
  if (repetition_penalty) sampling->set_repetition_penalty(*repetition_penalty);
  if (presence_penalty) sampling->set_presence_penalty(*presence_penalty);
  if (frequency_penalty) sampling->set_frequency_penalty(*frequency_penalty);
  if (seed) sampling->set_seed(*seed);
  return request;
}

}  // namespace lorad::loractl
