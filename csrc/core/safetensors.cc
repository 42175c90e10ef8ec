#include "core/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "core/check.h"
#include "core/json.h"

namespace nsrt {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is used in place, and is little endian");

constexpr std::size_t kPrefix = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the safetensors library's own limit
constexpr std::size_t kMaxRank = 16;

struct StoredDType {
  std::string_view name;
  std::uint64_t size;
};
constexpr StoredDType kStoredDTypes[] = {
    {"BF16", 2},    {"F32", 4},     {"F16", 2},     {"F64", 8}, {"BOOL", 1}, {"U8", 1},
    {"I8", 1},      {"U16", 2},     {"I16", 2},     {"U32", 4}, {"I32", 4},  {"U64", 8},
    {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"I64", 8}, {"C64", 8},
};

struct Entry {
  const std::string* name = nullptr;
  std::string_view dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// "PATH: tensor "NAME"", the start of every message about one tensor.
std::string tensor_of(const MappedFile& file, const std::string& name) {
  return str(file.path(), ": tensor ", quoted(name));
}

std::string_view header_text(const MappedFile& file) {
  check<CheckpointError>(file.size() >= kPrefix, file.path(), " has ", file.size(),
                         " bytes, too few for a safetensors file; download it again");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kPrefix);
  check<CheckpointError>(length <= kMaxHeader, file.path(), " states a header of ", length, " bytes, more than the ",
                         kMaxHeader, " that are allowed; it is damaged or not a safetensors file");
  check<CheckpointError>(length <= file.size() - kPrefix, file.path(), " states a header of ", length,
                         " bytes, but has only ", file.size() - kPrefix, " after the length; it is cut short");
  const std::string_view text = file.text().substr(kPrefix, static_cast<std::size_t>(length));
  check<CheckpointError>(text.starts_with('{'), file.path(), ": the header does not begin with '{'");
  return text;
}

// A list of non-negative 64-bit integers; false where it is anything else.
bool read_sizes(const Json* json, std::size_t max_count, std::vector<std::int64_t>& out) {
  const auto* items = json != nullptr ? json->get<Json::Array>() : nullptr;
  if (items == nullptr || items->size() > max_count) return false;
  for (const Json& item : *items) {
    const auto* n = item.get<std::int64_t>();
    if (n == nullptr || *n < 0) return false;
    out.push_back(*n);
  }
  return true;
}

std::uint64_t stored_size(const MappedFile& file, const Entry& entry) {
  const auto* known = std::find_if(std::begin(kStoredDTypes), std::end(kStoredDTypes),
                                   [&](const StoredDType& d) { return d.name == entry.dtype; });
  if (known == std::end(kStoredDTypes))
    throw CheckpointError(str(tensor_of(file, *entry.name), " has the unknown dtype ", quoted(entry.dtype),
                              "; convert it to bfloat16 or float32"));
  std::uint64_t bytes = known->size;
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (const std::int64_t dim : entry.shape) {
    const auto d = static_cast<std::uint64_t>(dim);
    if (d != 0 && bytes > kMax / d)
      throw CheckpointError(str(tensor_of(file, *entry.name), ": its shape overflows 64 bits"));
    bytes *= d;
  }
  return bytes;
}

Entry read_entry(const MappedFile& file, const std::string& name, const Json& json, std::uint64_t data_size) {
  Entry entry;
  entry.name = &name;
  const Json* dtype = json.find("dtype");
  const auto* dtype_name = dtype != nullptr ? dtype->get<std::string>() : nullptr;
  std::vector<std::int64_t> offsets;
  if (dtype_name == nullptr || !read_sizes(json.find("shape"), kMaxRank, entry.shape) ||
      !read_sizes(json.find("data_offsets"), 2, offsets) || offsets.size() != 2)
    throw CheckpointError(str(tensor_of(file, name), R"( needs "dtype" (a string), "shape" (at most )", kMaxRank,
                              R"( sizes) and "data_offsets" (two))"));
  entry.dtype = *dtype_name;
  entry.begin = static_cast<std::uint64_t>(offsets[0]);
  entry.end = static_cast<std::uint64_t>(offsets[1]);
  if (entry.begin > entry.end || entry.end > data_size)
    throw CheckpointError(str(tensor_of(file, name), " lies at bytes ", entry.begin, " to ", entry.end, ", but there ",
                              "are ", data_size, " bytes of data; the file is cut short or damaged"));
  const std::uint64_t bytes = stored_size(file, entry);
  if (bytes != entry.end - entry.begin)
    throw CheckpointError(
        str(tensor_of(file, name), " has ", entry.end - entry.begin, " bytes, but its shape and dtype need ", bytes));
  return entry;
}

// Ignored, but the format says what it must be.
void check_metadata(const MappedFile& file, const Json& json) {
  const auto* object = json.get<Json::Object>();
  bool strings = object != nullptr;
  for (std::size_t i = 0; strings && i < object->size(); ++i)
    strings = (*object)[i].second.get<std::string>() != nullptr;
  if (!strings) throw CheckpointError(str(file.path(), ": __metadata__ must be an object of strings"));
}

std::vector<Entry> read_header(const MappedFile& file, const Json& header, std::uint64_t data_size) {
  std::vector<Entry> entries;
  for (const auto& [name, json] : *header.get<Json::Object>()) {
    if (name == "__metadata__")
      check_metadata(file, json);
    else
      entries.push_back(read_entry(file, name, json, data_size));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  return entries;
}

// As the safetensors library demands: the tensors, in order, cover the data without overlap, gap or rest.
void check_cover(const MappedFile& file, const std::vector<Entry>& entries, std::uint64_t data_size) {
  std::uint64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end)
      throw CheckpointError(str(tensor_of(file, *entry.name), " begins at byte ", entry.begin, " of the data, ",
                                entry.begin < end ? "inside the tensor before it, which ends at "
                                                  : "leaving a gap after the tensor before it, which ends at ",
                                end, "; the file is damaged"));
    end = entry.end;
  }
  check<CheckpointError>(end == data_size, file.path(), " has ", data_size - end,
                         " bytes after its last tensor; it is damaged");
}

DType weight_dtype(const MappedFile& file, const Entry& entry) {
  if (entry.dtype == "BF16") return DType::kBFloat16;
  if (entry.dtype == "F32") return DType::kFloat32;
  throw CheckpointError(str(tensor_of(file, *entry.name), " has dtype ", entry.dtype,
                            ", which is not supported; convert it to bfloat16 (BF16) or float32 (F32)"));
}

}  // namespace

bool is_unused_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("position_ids");
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const std::string_view text = header_text(file_);
  const Json header = Json::parse(text, path + ": header");
  const std::size_t data_start = kPrefix + text.size();
  const std::uint64_t data_size = file_.size() - data_start;
  const std::vector<Entry> entries = read_header(file_, header, data_size);
  check_cover(file_, entries, data_size);
  for (const Entry& entry : entries) {
    if (is_unused_buffer(*entry.name)) continue;
    add(*entry.name, {nullptr, weight_dtype(file_, entry), entry.shape}, file_.data() + data_start + entry.begin);
  }
}

void SafetensorsFile::add(const std::string& name, TensorView view, const std::byte* data) {
  const std::size_t bytes = view.nbytes();
  if (bytes != 0 && reinterpret_cast<std::uintptr_t>(data) % item_size(view.dtype) != 0) {
    try {
      copies_.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
    } catch (const std::bad_alloc&) {
      throw Error(str(tensor_of(file_, name), " is not aligned in the file, and there is no memory to copy its ", bytes,
                      " bytes; write the file again with a current safetensors library"));
    }
    std::memcpy(copies_.back().get(), data, bytes);
    data = copies_.back().get();
  }
  view.data = data;
  tensors_.emplace(name, std::move(view));
}

}  // namespace nsrt
