// A "cuda" device inside a CPU build of torch, for tests on machines without one. Its tensors have storages of their
// own, and the CPU's kernels compute on copies of them. As on CUDA, an operation that is given tensors of two devices,
// but for single numbers on the CPU, or a generator of the CPU, raises; so does an allocation beyond a limit. It counts
// the bytes alive, and tells what the host waits for, copies from memory that is not pinned included.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <mutex>
#include <set>

namespace {
using namespace c10;

const Device CUDA{DeviceType::CUDA, 0};
std::atomic<int64_t> live{0}, peak{0}, limit{0};
std::atomic<void (*)(const char*)> heard{nullptr};
thread_local bool computing = false;  // a kernel of the CPU runs, whose copies are none of the program's

void tell(const char* what) {
  if (computing) return;
  if (auto hear = heard.load()) hear(what);
}

constexpr size_t HEAD = 64;  // bytes before a block, which begin with its size
void give_back(void* block) {
  auto* head = static_cast<char*>(block) - HEAD;
  live -= *reinterpret_cast<int64_t*>(head);
  free(head);
}
struct DeviceMemory final : Allocator {
  DataPtr allocate(size_t size) override {
    if (!size) return {nullptr, nullptr, &give_back, CUDA};
    const auto taken = static_cast<int64_t>((size + 511) / 512 * 512);
    TORCH_CHECK_WITH(OutOfMemoryError, !limit || live + taken <= limit, "CUDA out of memory. Tried to allocate ",
                     taken, " bytes");
    live += taken;
    if (live > peak) peak = live.load();
    auto* head = static_cast<char*>(aligned_alloc(HEAD, taken + HEAD));
    *reinterpret_cast<int64_t*>(head) = taken;
    return {head + HEAD, head + HEAD, &give_back, CUDA};
  }
  DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, std::size_t size) const override { memcpy(to, from, size); }
} memory;

std::mutex lock;
std::set<const void*> pinned;
void unpin(void* block) {
  std::lock_guard<std::mutex> held(lock);
  pinned.erase(block);
  free(block);
}
struct PinnedMemory final : Allocator {
  DataPtr allocate(size_t size) override {
    auto* block = size ? aligned_alloc(HEAD, (size + HEAD - 1) / HEAD * HEAD) : nullptr;
    std::lock_guard<std::mutex> held(lock);
    if (block) pinned.insert(block);
    return {block, block, &unpin, Device(DeviceType::CPU)};
  }
  DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, std::size_t size) const override { memcpy(to, from, size); }
} pinned_memory;
bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> held(lock);
  return pinned.count(data) > 0;
}

struct Guard final : impl::DeviceGuardImplInterface {
  static constexpr DeviceType static_type = DeviceType::CUDA;
  DeviceType type() const override { return static_type; }
  Device exchangeDevice(Device) const override { return CUDA; }
  Device getDevice() const override { return CUDA; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, CUDA); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, CUDA); }
  Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, CUDA); }
  Stream exchangeStream(Stream) const override { return Stream(Stream::DEFAULT, CUDA); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { tell("a stream"); }
  void synchronizeEvent(void*) const override { tell("an event"); }
  void synchronizeDevice(const DeviceIndex) const override { tell("the device"); }
};
impl::DeviceGuardImplRegistrar guard(DeviceType::CUDA, new Guard());
const bool ready = (SetAllocator(DeviceType::CUDA, &memory, 255), true);

at::Tensor on_cpu(const at::Tensor& tensor) {  // the same memory, called the CPU's
  if (tensor.is_cpu()) return tensor;
  auto kept = tensor.storage();
  auto* data = tensor.numel() ? const_cast<void*>(tensor.const_data_ptr()) : nullptr;
  auto same = at::from_blob(data, tensor.sizes(), tensor.strides(), [kept](void*) {},
                            at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU));
  same._set_conj(tensor.is_conj());
  same._set_neg(tensor.is_neg());
  return same;
}

at::Tensor empty(SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, DispatchKeySet(DispatchKey::CUDA),
                                   dtype.value_or(at::get_default_dtype_as_scalartype()), format);
}
at::Tensor empty_strided(SymIntArrayRef size, SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
                                           DispatchKeySet(DispatchKey::CUDA),
                                           dtype.value_or(at::get_default_dtype_as_scalartype()));
}
at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool in_background) {
  if (to.is_cpu() && !from.is_cpu() && to.numel() && !(in_background && is_pinned(to.storage().data())))
    tell("a copy to the CPU");
  if (from.is_cpu() && !to.is_cpu() && from.numel() && !is_pinned(from.storage().data()))
    tell("a copy from memory that is not pinned");
  on_cpu(to).copy_(on_cpu(from));
  return to;
}
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool in_background) {
  at::Tensor written = to;
  return copy_(written, from, in_background);
}
at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}
const at::Tensor& resize_(const at::Tensor& tensor, SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* inner = tensor.unsafeGetTensorImpl();
  int64_t numbers = 1;
  for (auto side : C10_AS_INTARRAYREF_SLOW(size)) numbers *= side;
  auto storage = tensor.storage();
  const size_t needed = (inner->storage_offset() + numbers) * tensor.dtype().itemsize();
  if (storage.nbytes() < needed) {
    auto block = memory.allocate(needed);
    if (storage.nbytes()) memcpy(block.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(block));
    storage.set_nbytes(needed);
  }
  inner->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  return tensor;
}
at::Scalar local_scalar(const at::Tensor& tensor) {
  tell("a number");
  return on_cpu(tensor).item();
}
at::Tensor& set_(at::Tensor& tensor, at::Storage storage, SymInt offset, SymIntArrayRef size, SymIntArrayRef stride) {
  auto* inner = tensor.unsafeGetTensorImpl();
  inner->set_storage_keep_dtype(storage);
  inner->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return tensor;
}

void refuse_misplaced(const OperatorHandle& op, const torch::jit::Stack& stack) {
  const auto& name = op.schema().operator_name().name;
  const bool indexes = name.find("index") != std::string::npos;  // CUDA copies indices that lie on the CPU
  auto on_the_cpu = [](const IValue& value) {
    return value.isTensor() && value.toTensor().defined() && value.toTensor().is_cpu() && value.toTensor().dim() > 0;
  };
  bool misplaced = false, generator = false;
  for (const auto& value : torch::jit::last(stack, op.schema().arguments().size())) {
    misplaced |= on_the_cpu(value);
    if (value.isList())
      for (const auto& part : value.toListRef()) misplaced |= !indexes && on_the_cpu(part);
    generator |= value.isGenerator() && value.toGenerator().device().is_cpu();
  }
  TORCH_CHECK(!misplaced, "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
              name, ")");
  TORCH_CHECK(!generator, "Expected a 'cuda' device type for generator but found 'cpu' (", name, ")");
}
void compute(const OperatorHandle& op, torch::jit::Stack* stack) {
  refuse_misplaced(op, *stack);
  const auto& name = op.schema().operator_name().name;
  if (name == "aten::nonzero" || name == "aten::masked_select" || name == "aten::equal") tell(name.c_str());
  struct Computing {
    bool before = computing;
    Computing() { computing = true; }
    ~Computing() { computing = before; }
  } now;
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}
}  // namespace

namespace at {
struct DummyHooks : public CUDAHooksInterface {
  explicit DummyHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override { tell("the device"); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
};
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", DummyHooks)
}  // namespace at

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("copy_", copy_);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("unfold", at::native::unfold);
  library.impl("view_as_complex", at::native::view_as_complex);
  library.impl("view_as_real", at::native::view_as_real);
  library.impl("resize_", resize_);
  library.impl("_local_scalar_dense", local_scalar);
  library.impl("set_.source_Storage_storage_offset", set_);
}
TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

extern "C" {
int64_t dummy_live() { return live; }
int64_t dummy_peak() { return peak; }
void dummy_restart() { peak = live.load(); }
void dummy_limit(int64_t bytes) { limit = bytes; }
void dummy_pin(const void* block) {
  std::lock_guard<std::mutex> held(lock);
  pinned.insert(block);
}
void dummy_unpin(const void* block) {
  std::lock_guard<std::mutex> held(lock);
  pinned.erase(block);
}
void dummy_hear(void (*hear)(const char*)) { heard = hear; }
}
