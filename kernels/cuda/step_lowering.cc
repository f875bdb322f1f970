#include "kernels/cuda/step_lowering.h"

#include <algorithm>
#include <iterator>

#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample_ops.h"
#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kBuckets[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128};
// Above this many rows a library's product is the faster one.
constexpr int kOwnProductRows = 64;

// The least capacities of lists: larger ones make fewer different programs, smaller ones less to
// upload.
constexpr size_t kMinRows = 64;
constexpr size_t kMinCopies = 16;
constexpr size_t kMinSegments = 64;
constexpr size_t kMinPages = 4096;
constexpr size_t kMinWork = 512;
constexpr size_t kMinMerges = 256;

template <typename T>
bool SameSpan(std::span<const T> a, std::span<const T> b) {
  return a.data() == b.data() && a.size() == b.size();
}

bool SameShape(const AttentionShape& a, const AttentionShape& b) {
  return a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
         a.scale == b.scale && a.window == b.window;
}

// The next of `kept`, made if there is none.
template <typename T>
T& Next(std::vector<std::unique_ptr<T>>& kept, size_t& used) {
  if (used == kept.size()) kept.push_back(std::make_unique<T>());
  return *kept[used++];
}

}  // namespace

int BucketRows(int rows) {
  const auto at = std::ranges::lower_bound(kBuckets, rows);
  return at != std::end(kBuckets) ? *at : (rows + 63) / 64 * 64;
}

bool StepLowering::DecodesOnly(const StepOps& step) {
  bool any = false, decode = true;
  for (const StepOp& op : step.ops) {
    const auto* append = std::get_if<RopeAppendOp>(&op);
    const auto* attention = std::get_if<AttentionOp>(&op);
    if (append == nullptr && attention == nullptr) continue;
    any = true;
    const auto sequences = append ? append->args.sequences : attention->args.sequences;
    decode = decode && std::ranges::all_of(sequences, [](const SequenceRows& s) {
               return s.end_row - s.first_row == 1;
             });
    if (!decode) break;
  }
  return any && decode;
}

bool StepLowering::Lower(const StepOps& step, Program* program) {
  step_ = &step;
  program_ = program;
  decode_ = DecodesOnly(step);
  adapters_used_ = attention_used_ = 0;
  for (size_t i = 0; i < step.ops.size(); ++i) {
    const auto* linear = std::get_if<LinearOp>(&step.ops[i]);
    const auto* next = i + 1 < step.ops.size() ? std::get_if<SwiGluOp>(&step.ops[i + 1]) : nullptr;
    if (linear != nullptr && next != nullptr && next->gate_up == &Of(*linear->args.y)) {
      Lower(*linear, next);
      ++i;
    } else {
      std::visit([this](const auto& o) { Lower(o); }, step.ops[i]);
    }
  }
  return program->fits() && !workspace_.wanted() && !low_rank_.wanted() && !partials_.wanted() &&
         !exchange_.wanted();
}

absl::Status StepLowering::Grow() {
  for (Scratch* scratch : {&workspace_, &low_rank_, &partials_, &exchange_}) {
    LORAD_RETURN_IF_ERROR(scratch->Grow(*parts_.runtime));
  }
  return absl::OkStatus();
}

int StepLowering::Rows(int rows, std::initializer_list<const CudaTensor*> tensors) const {
  int bucket = decode_ ? BucketRows(rows) : rows;
  for (const CudaTensor* t : tensors) bucket = std::min(bucket, t->max_rows());
  return bucket;
}

void StepLowering::Lower(const CopyPagesOp& op) {
  const auto copies = program_->List(op.copies, kMinCopies);
  LaunchCopyPages(*program_, device(), slab_.data, slab_.page_bytes, copies.view, copies.capacity);
}

void StepLowering::Lower(const EmbedOp& op) {
  const int count = static_cast<int>(op.ids.size());
  const int rows = Rows(count, {op.out});
  const int32_t* ids = program_->Array(op.ids, size_t(rows), int32_t{0}, kMinRows);
  LaunchEmbed(*program_, rows, ids, parts_.tokens, op.table->view, op.out->view());
  op.out->set_rows(count);
}

void StepLowering::Lower(const RmsNormOp& op) {
  LaunchRmsNorm(*program_, Rows(op.rows, {op.x, op.y}), op.x->view(), op.weight->data(), op.eps,
                op.y->view());
  op.y->set_rows(op.rows);
}

void StepLowering::Lower(const RopeAnglesOp& op) {
  const int count = static_cast<int>(op.positions.size());
  const int rows = Rows(count, {op.angles});
  const int32_t* positions = program_->Array(op.positions, size_t(rows), int32_t{0}, kMinRows);
  LaunchRopeAngles(*program_, rows, positions, op.inv_freq->data(), op.inv_freq->size(),
                   op.angles->view());
  op.angles->set_rows(count);
}

void StepLowering::Lower(const SwiGluOp& op) {
  LaunchSwiGlu(*program_, Rows(op.rows, {op.gate_up, op.out}), op.gate_up->view(), op.out->view());
  op.out->set_rows(op.rows);
}

void StepLowering::Lower(const GatherRowsOp& op) {
  const int count = static_cast<int>(op.rows.size());
  const int rows = Rows(count, {op.out});
  const int32_t* indices = program_->Array(op.rows, size_t(rows), int32_t{0}, kMinRows);
  LaunchGatherRows(*program_, rows, indices, op.x->view(), op.out->view());
  op.out->set_rows(count);
}

void StepLowering::Lower(const SampleOp& op) {
  const int count = static_cast<int>(op.rows.size());
  const int rows = decode_ ? std::min(BucketRows(count), parts_.max_tokens) : count;
  const SampleRow nobody{.row = -1};
  LaunchSample(*program_, device(),
               {.logits = op.logits->view(),
                .vocab = op.logits->cols(),
                .rows = program_->Array(op.rows, size_t(rows), nobody, kMinRows),
                .count = rows,
                .tokens = parts_.tokens});
}

void StepLowering::Lower(const SumOp& op) {
  const TensorView& x = op.x->view();
  const int rows = Rows(op.rows, {op.x});
  if (!exchange_.Has(op.ranks->SumBytes(rows, x))) return;
  op.ranks->RecordSum(*program_, rows, x, exchange_.data());
  op.x->set_rows(op.rows);
}

void StepLowering::Lower(const GatherOp& op) {
  const TensorView& part = op.part->view();
  const int rows = Rows(op.rows, {op.part, op.whole});
  if (!exchange_.Has(op.ranks->GatherBytes(rows, part))) return;
  op.ranks->RecordGather(*program_, rows, part, op.whole->view(), exchange_.data());
  op.whole->set_rows(op.rows);
}

void StepLowering::Lower(const LinearOp& op) { Lower(op, nullptr); }

// The adapters' first half runs beside the product of the base weights and needs few of the
// device's processors; the second half adds to what that product wrote, or is part of the
// activation that follows.
void StepLowering::Lower(const LinearOp& op, const SwiGluOp* activation) {
  const LinearArgs& args = op.args;
  const CudaTensor& x = Of(*args.x);
  CudaTensor& y = Of(*args.y);
  const int rows = Rows(args.rows, {&x, &y});
  y.set_rows(args.rows);
  StepAdapters* adapters = args.segments.empty() ? nullptr : &AdaptersOf(args.segments);
  const SiteWork* work = adapters == nullptr ? nullptr : &adapters->work.At(args.site);
  if (work == nullptr || (work->shrink_few.empty() && work->shrink_many.empty())) {
    Product(rows, x, Of(*args.w), y, args.accumulate);
    if (activation != nullptr) Lower(*activation);
    return;
  }
  for (size_t i = 0; i < op.waits; ++i) {
    program_->Wait(step_->images[step_->waits[op.first_wait + i]]->SiteEvent(args.site));
  }
  if (!low_rank_.Has(adapters->work.scratch_floats() * sizeof(float))) return;
  const AdapterParams params{.site = args.site,
                             .slab = slab_.data,
                             .page_bytes = slab_.page_bytes,
                             .entries = adapters->entries,
                             .pages = adapters->pages,
                             .scratch = static_cast<float*>(low_rank_.data())};
  // Calls launch(list, capacity, many_rows) for lists that are not empty.
  const auto each = [&](const auto& few, const auto& many, const auto& launch) {
    for (const bool many_rows : {false, true}) {
      const auto& items = many_rows ? many : few;
      if (items.empty()) continue;
      const auto list = program_->List(std::span(items), kMinWork);
      launch(list.view, list.capacity, many_rows);
    }
  };
  program_->Fork();
  each(work->shrink_few, work->shrink_many, [&](const auto& list, int capacity, bool many_rows) {
    LaunchShrink(*program_, device(), params, x.view(), list, capacity, many_rows);
  });
  program_->EndFork();
  Product(rows, x, Of(*args.w), y, args.accumulate);
  program_->Join();
  const SwiGluWork* fused =
      activation == nullptr ? nullptr : Fused(*activation, y, *adapters, args);
  if (fused != nullptr) {
    CudaTensor& out = *activation->out;
    each(fused->few, fused->many, [&](const auto& list, int capacity, bool many_rows) {
      LaunchExpandSwiGlu(*program_, device(), params, y.view(), out.view(), list, capacity,
                         many_rows);
    });
    out.set_rows(activation->rows);
    return;
  }
  each(work->expand_few, work->expand_many, [&](const auto& list, int capacity, bool many_rows) {
    LaunchExpand(*program_, device(), params, y.view(), list, capacity, many_rows);
  });
  if (activation != nullptr) Lower(*activation);
}

const SwiGluWork* StepLowering::Fused(const SwiGluOp& activation, const CudaTensor& gate_up,
                                      StepAdapters& adapters, const LinearArgs& args) {
  const CudaTensor& out = *activation.out;
  if (activation.rows != args.rows || gate_up.view().full || out.view().full ||
      gate_up.cols() != 2 * out.cols()) {
    return nullptr;
  }
  return adapters.work.SwiGlu(args.site, args.rows, out.cols());
}

void StepLowering::Product(int rows, const CudaTensor& x, const CudaMatrix& w, const CudaTensor& y,
                           bool accumulate) {
  const GemmParams params{
      .rows = rows, .x = x.view(), .w = w.view, .y = y.view(), .accumulate = accumulate};
  if (parts_.matmul != nullptr && rows > kOwnProductRows && w.view.format == WeightFormat::kBf16) {
    parts_.matmul->Record(*program_, params, w.bf16_bias.data());
    return;
  }
  GemmParams own = params;
  if (!workspace_.Has(GemmWorkspaceBytes(device(), rows, w.view))) return;
  own.workspace = workspace_.data();
  LaunchGemm(*program_, device(), own);
}

StepLowering::StepAdapters& StepLowering::AdaptersOf(std::span<const AdapterSegment> segments) {
  for (size_t i = 0; i < adapters_used_; ++i) {
    if (SameSpan(adapters_[i]->segments, segments)) return *adapters_[i];
  }
  StepAdapters& adapters = Next(adapters_, adapters_used_);
  adapters.segments = segments;
  adapters.work.Begin(segments, device());
  const std::span entries(adapters.work.entries());
  const std::span pages(adapters.work.pages());
  adapters.entries = program_->Array(entries, entries.size(), SegmentEntry{}, kMinSegments);
  adapters.pages = program_->Array(pages, pages.size(), uint32_t{0}, kMinPages);
  return adapters;
}

StepLowering::StepAttention& StepLowering::AttentionOf(std::span<const SequenceRows> sequences,
                                                       int rows, const AttentionShape& shape) {
  for (size_t i = 0; i < attention_used_; ++i) {
    StepAttention& known = *attention_[i];
    if (SameSpan(known.sequences, sequences) && SameShape(known.shape, shape)) return known;
  }
  StepAttention& attention = Next(attention_, attention_used_);
  attention.sequences = sequences;
  attention.shape = shape;
  PlanAttention(sequences, rows, shape, kv_.geometry.page_tokens, device(), &attention.work);
  return attention;
}

void StepLowering::Lower(const RopeAppendOp& op) {
  const RopeAppendArgs& args = op.args;
  const StepAttention& attention = AttentionOf(args.sequences, args.rows, args.shape);
  CudaTensor& qkv = Of(*args.qkv);
  const int rows = Rows(args.rows, {&qkv, &Of(*args.angles)});
  LaunchRopeAppend(*program_, device(),
                   {.rows = rows,
                    .layer = args.layer,
                    .shape = args.shape,
                    .qkv = qkv.view(),
                    .angles = Of(*args.angles).view(),
                    .q_norm = args.q_norm ? Of(*args.q_norm).data() : nullptr,
                    .k_norm = args.k_norm ? Of(*args.k_norm).data() : nullptr,
                    .norm_eps = args.norm_eps,
                    .places = program_->Array(std::span(attention.work.places), size_t(rows),
                                              RowPlace{}, kMinRows),
                    .kv = kv_});
  qkv.set_rows(args.rows);
}

void StepLowering::Lower(const AttentionOp& op) {
  const AttentionArgs& args = op.args;
  const AttentionWork& work = AttentionOf(args.sequences, args.rows, args.shape).work;
  const auto items = ListOrNone(std::span(work.items), kMinWork);
  const auto tiles = ListOrNone(std::span(work.tiles), kMinWork);
  const auto merges = ListOrNone(std::span(work.merges), kMinMerges);
  const size_t partials = size_t(work.partials) * PartialFloats(args.shape) * sizeof(float);
  if (!partials_.Has(partials)) return;
  LaunchAttention(
      *program_, device(),
      {.layer = args.layer,
       .shape = args.shape,
       .qkv = Of(*args.qkv).view(),
       .out = Of(*args.out).view(),
       .pages = program_->Array(std::span(work.pages), work.pages.size(), uint32_t{0}, kMinPages),
       .items = items.view,
       .item_capacity = items.capacity,
       .tiles = tiles.view,
       .tile_capacity = tiles.capacity,
       .merges = merges.view,
       .merge_capacity = merges.capacity,
       .partials = static_cast<float*>(partials_.data()),
       .kv = kv_});
  Of(*args.out).set_rows(args.rows);
}

}  // namespace lorad::kernels::cuda
