// A backend that behaves like a device: what it is given runs late, step by step, when somebody
// waits for it, and it draws tokens itself. Lists are read when a step ends, as the contract says,
// so one that changed too early, or a result that was taken too early, shows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "memory/base/check.h"
#include "model/sampling.h"
#include "tests/unit/kernels/forwarding_backend.h"

namespace lorad {

class LateBackend final : public kernels::ForwardingBackend {
 public:
  bool Samples() const override { return true; }
  uint64_t LastStep() const override { return last_step_; }

  uint64_t EndStep() override {
    Flush();
    queue_.push_back({++last_step_, std::exchange(works_, {})});
    LORAD_CHECK(last_step_ - finished_ <= 2);
    return last_step_;
  }
  absl::Status WaitForStep(uint64_t step) override {
    while (finished_ < step) RunNext();
    return error;
  }
  absl::StatusOr<std::span<const int32_t>> Sampled(uint64_t step) override {
    LORAD_CHECK(step + 1 >= last_step_);
    if (absl::Status status = WaitForStep(step); !status.ok()) return status;
    return std::span<const int32_t>(tokens_.at(step));
  }

  void PoisonPages(std::span<const uint32_t> pages) override {
    Put([=, this] {
      return [this, copy = std::vector(pages.begin(), pages.end())] { inner().PoisonPages(copy); };
    });
    Flush();
  }
  void CopyPages(std::span<const kernels::PageCopy> copies) override {
    Put([=, this] {
      return [this, copy = std::vector(copies.begin(), copies.end())] { inner().CopyPages(copy); };
    });
  }
  void Embed(std::span<const int32_t> ids, const kernels::Matrix& table,
             kernels::Tensor& out) override {
    Put([=, this, &table, &out] {
      return [this, &table, &out, copy = std::vector(ids.begin(), ids.end())]() mutable {
        for (int32_t& id : copy) {
          if (id < 0) id = tokens_.at(running_ - 1).at(static_cast<size_t>(-1 - id));
        }
        inner().Embed(copy, table, out);
      };
    });
  }
  void RmsNorm(int rows, const kernels::Tensor& x, const kernels::Vector& weight, float eps,
               kernels::Tensor& y) override {
    PutAsIs([=, this, &x, &weight, &y] { inner().RmsNorm(rows, x, weight, eps, y); });
  }
  void Linear(const kernels::LinearArgs& args) override {
    Put([=, this] {
      std::vector<kernels::AdapterSegment> segments(args.segments.begin(), args.segments.end());
      auto pages = std::make_shared<std::deque<std::vector<uint32_t>>>();
      for (kernels::AdapterSegment& segment : segments) {
        segment.pages = pages->emplace_back(segment.pages.begin(), segment.pages.end());
      }
      return [this, args, segments = std::move(segments), pages] {
        kernels::LinearArgs copy = args;
        copy.segments = segments;
        inner().Linear(copy);
      };
    });
  }
  void RopeAngles(std::span<const int32_t> positions, const kernels::Vector& inv_freq,
                  kernels::Tensor& angles) override {
    Put([=, this, &inv_freq, &angles] {
      return [this, &inv_freq, &angles, copy = std::vector(positions.begin(), positions.end())] {
        inner().RopeAngles(copy, inv_freq, angles);
      };
    });
  }
  void RopeAppend(const kernels::RopeAppendArgs& args) override {
    PutSequences(args, [this](const auto& a) { inner().RopeAppend(a); });
  }
  void Attention(const kernels::AttentionArgs& args) override {
    PutSequences(args, [this](const auto& a) { inner().Attention(a); });
  }
  void SwiGlu(int rows, const kernels::Tensor& gate_up, kernels::Tensor& out) override {
    PutAsIs([=, this, &gate_up, &out] { inner().SwiGlu(rows, gate_up, out); });
  }
  void GatherRows(std::span<const int32_t> rows, const kernels::Tensor& x,
                  kernels::Tensor& out) override {
    Put([=, this, &x, &out] {
      return [this, &x, &out, copy = std::vector(rows.begin(), rows.end())] {
        inner().GatherRows(copy, x, out);
      };
    });
  }
  std::span<float> HostRow(kernels::Tensor& x, int row) override {
    Flush();
    while (!queue_.empty()) RunNext();
    running_ = last_step_ + 1;
    for (const Work& work : std::exchange(works_, {})) work();
    return inner().HostRow(x, row);
  }
  void Sample(const kernels::Tensor& logits, std::span<const kernels::SampleRow> rows) override {
    ++sample_calls;
    Put([=, this, &logits] {
      return [this, &logits, copy = std::vector(rows.begin(), rows.end())] {
        std::vector<int32_t>& tokens = tokens_[running_];
        LORAD_CHECK(tokens.empty());
        for (const kernels::SampleRow& row : copy) tokens.push_back(Draw(logits, row));
      };
    });
  }

  absl::Status error;
  int sample_calls = 0;
  uint64_t finished() const { return finished_; }

 private:
  using Work = std::function<void()>;

  // `capture` is called when the lists must be read, what it returns when the device comes to it.
  void Put(std::function<Work()> capture) { recorded_.push_back(std::move(capture)); }
  void PutAsIs(const Work& work) {
    Put([work] { return work; });
  }
  template <typename Args, typename Fn>
  void PutSequences(const Args& args, const Fn& fn) {
    Put([=] {
      std::vector<kernels::SequenceRows> sequences(args.sequences.begin(), args.sequences.end());
      auto pages = std::make_shared<std::deque<std::vector<uint32_t>>>();
      for (kernels::SequenceRows& s : sequences) {
        s.kv_pages = pages->emplace_back(s.kv_pages.begin(), s.kv_pages.end());
      }
      return [args, fn, pages, sequences = std::move(sequences)] {
        Args copy = args;
        copy.sequences = sequences;
        fn(copy);
      };
    });
  }
  void Flush() {
    for (const auto& capture : std::exchange(recorded_, {})) works_.push_back(capture());
  }
  void RunNext() {
    LORAD_CHECK(!queue_.empty());
    auto [step, works] = std::move(queue_.front());
    queue_.pop_front();
    running_ = step;
    for (const Work& work : works) work();
    finished_ = step;
  }
  int32_t Draw(const kernels::Tensor& logits, const kernels::SampleRow& row) {
    SamplingParams params{.temperature = row.temperature,
                          .top_k = row.top_k,
                          .top_p = row.top_p,
                          .min_p = row.min_p,
                          .seed = row.seed};
    const auto values = inner().HostRow(const_cast<kernels::Tensor&>(logits), row.row);
    return Sampler(params, {}, static_cast<int>(values.size()))
        .Sample(values, static_cast<int>(row.index))
        .token;
  }

  std::vector<std::function<Work()>> recorded_;               // lists not read yet
  std::vector<Work> works_;                                   // of the step that has not ended
  std::deque<std::pair<uint64_t, std::vector<Work>>> queue_;  // steps that have
  std::map<uint64_t, std::vector<int32_t>> tokens_;           // by step
  uint64_t last_step_ = 0, finished_ = 0, running_ = 0;
};

}  // namespace lorad
