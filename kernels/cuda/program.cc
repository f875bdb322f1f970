#include "kernels/cuda/program.h"

#include <algorithm>
#include <bit>

#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr size_t kListAlignment = 256;

}  // namespace

void Program::Begin(std::span<std::byte> staging, std::byte* device) {
  staging_ = staging;
  device_ = device;
  list_bytes_ = 0;
  known_.clear();
  commands_.clear();
  has_waits_ = forked_ = unjoined_ = false;
}

size_t Program::CapacityFor(size_t size, size_t minimum) {
  return std::max(std::bit_ceil(size), minimum);
}

const Program::Known* Program::Find(const void* data, size_t bytes, size_t size) const {
  if (bytes == 0) return nullptr;
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& k) {
    return k.data == data && k.bytes == bytes && k.size == size;
  });
  return found == known_.end() ? nullptr : &*found;
}

size_t Program::Reserve(size_t bytes) {
  const size_t place = list_bytes_;
  list_bytes_ += (bytes + kListAlignment - 1) / kListAlignment * kListAlignment;
  return place;
}

void Program::Add(Kind kind, const void* part, size_t part_bytes, const void* args,
                  size_t args_bytes) {
  static_assert(sizeof(Header) == sizeof(Unit) && sizeof(LaunchPart) % sizeof(Unit) == 0 &&
                sizeof(CallPart) == sizeof(Unit) && sizeof(WaitPart) == sizeof(Unit));
  const size_t args_units = (args_bytes + sizeof(Unit) - 1) / sizeof(Unit);
  const size_t at = commands_.size();
  commands_.resize(at + 1 + part_bytes / sizeof(Unit) + args_units);  // zeros
  const Header header{kind, static_cast<uint32_t>(part_bytes + args_units * sizeof(Unit)), 0};
  std::memcpy(&commands_[at], &header, sizeof(header));
  if (part_bytes > 0) std::memcpy(&commands_[at + 1], part, part_bytes);
  if (args_bytes > 0) {
    std::memcpy(&commands_[at + 1 + part_bytes / sizeof(Unit)], args, args_bytes);
  }
}

void Program::Launch(const KernelRef& kernel, const Grid& grid, const void* args) {
  if (grid.x <= 0 || grid.y <= 0) return;
  const LaunchPart part{.function = kernel.function,
                        .name = kernel.name,
                        .emulate = kernel.emulate,
                        .shared_bytes = grid.shared_bytes,
                        .threads = kernel.threads,
                        .grid_x = grid.x,
                        .grid_y = grid.y,
                        .args_bytes = static_cast<uint32_t>(kernel.args_bytes)};
  Add(Kind::kLaunch, &part, sizeof(part), args, kernel.args_bytes);
}

void Program::AddCall(Callee callee, void* self, const void* args, size_t args_bytes) {
  const CallPart part{callee, self};
  Add(Kind::kCall, &part, sizeof(part), args, args_bytes);
}

void Program::Wait(Event event) {
  LORAD_CHECK(!forked_);
  has_waits_ = true;
  const WaitPart part{event.id, {}};
  Add(Kind::kWait, &part, sizeof(part), nullptr, 0);
}

void Program::Fork() {
  LORAD_CHECK(!forked_ && !unjoined_);
  forked_ = unjoined_ = true;
  Add(Kind::kFork, nullptr, 0, nullptr, 0);
}

void Program::EndFork() {
  LORAD_CHECK(forked_);
  forked_ = false;
  Add(Kind::kEndFork, nullptr, 0, nullptr, 0);
}

void Program::Join() {
  LORAD_CHECK(!forked_ && unjoined_);
  unjoined_ = false;
  Add(Kind::kJoin, nullptr, 0, nullptr, 0);
}

std::span<const std::byte> Program::key() const { return std::as_bytes(std::span(commands_)); }

void Program::Issue(Runtime& runtime, Stream main, Stream side, Event fork, Event join) const {
  LORAD_CHECK(fits() && joined());
  Stream stream = main;
  for (size_t at = 0; at < commands_.size();) {
    Header header;
    std::memcpy(&header, &commands_[at], sizeof(header));
    const Unit* const payload = &commands_[at] + 1;
    at += 1 + header.payload_bytes / sizeof(Unit);
    switch (header.kind) {
      case Kind::kLaunch: {
        LaunchPart part;
        std::memcpy(&part, payload, sizeof(part));
        runtime.Launch(
            stream, {part.name, part.function, part.threads, part.args_bytes, part.emulate},
            {part.grid_x, part.grid_y, part.shared_bytes}, payload + sizeof(part) / sizeof(Unit));
        break;
      }
      case Kind::kCall: {
        CallPart part;
        std::memcpy(&part, payload, sizeof(part));
        part.callee(part.self, stream, payload + 1);
        break;
      }
      case Kind::kWait: {
        WaitPart part;
        std::memcpy(&part, payload, sizeof(part));
        runtime.Wait(stream, Event{part.event});
        break;
      }
      case Kind::kFork:
        runtime.Record(fork, main);
        runtime.Wait(side, fork);
        stream = side;
        break;
      case Kind::kEndFork:
        runtime.Record(join, side);
        stream = main;
        break;
      case Kind::kJoin:
        runtime.Wait(main, join);
        break;
    }
  }
}

}  // namespace lorad::kernels::cuda
