#include "symbols.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <span>
#include <sstream>
#include <string_view>

namespace emu {
namespace {

struct CodePlace {
  std::string function, file;  // file: with the line
};
// Inlined calls make several places of one address, the innermost first.
using CodePlaces = std::map<const void*, std::vector<CodePlace>>;

std::string output_of(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> buffer;
  while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), pipe)) output += buffer.data();
  pclose(pipe);
  return output;
}

std::string program_path() {
  std::array<char, 4096> path;
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  return {path.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
}

void look_up(const std::string& module, std::span<const void* const> addresses, std::uintptr_t base,
             CodePlaces& places) {
  std::ostringstream command;
  command << "addr2line -aCfie '" << (module.empty() ? program_path() : module) << "'" << std::hex;
  for (const void* address : addresses) command << " 0x" << reinterpret_cast<std::uintptr_t>(address) - base;
  command << " 2>/dev/null";
  std::istringstream lines(output_of(command.str()));
  // A line with the address, then two lines a place.
  auto address = addresses.begin();
  for (std::string first, second; std::getline(lines, first);) {
    if (first.starts_with("0x")) {
      ++address;
    } else if (std::getline(lines, second) && first != "??") {
      places[address[-1]].push_back({first, second.substr(0, second.find(" (discriminator"))});
    }
  }
}

CodePlaces code_places(std::span<const void* const> addresses) {
  struct Module {
    std::uintptr_t base = 0;
    std::vector<const void*> addresses;
  };
  std::map<std::string, Module> modules;
  for (const void* address : addresses) {
    Dl_info info;
    link_map* map = nullptr;
    if (!dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) || !map) continue;
    Module& module = modules[map->l_name];
    module.base = map->l_addr;
    module.addresses.push_back(address);
  }
  CodePlaces places;
  for (const auto& [name, module] : modules) look_up(name, module.addresses, module.base, places);
  return places;
}

// "void a::b<(int)4>(float*)" to "a::b<(int)4>".
std::string bare_name(const std::string& demangled) {
  constexpr std::string_view kAnonymous = "(anonymous namespace)";
  std::size_t begin = 0;
  int depth = 0;
  for (std::size_t i = 0; i < demangled.size(); ++i) {
    if (demangled.compare(i, kAnonymous.size(), kAnonymous) == 0) {
      i += kAnonymous.size() - 1;
      continue;
    }
    const char c = demangled[i];
    depth += c == '<' ? 1 : c == '>' ? -1 : 0;
    if (depth > 0) continue;
    if (c == ' ') begin = i + 1;
    if (c == '(') return demangled.substr(begin, i - begin);
  }
  return demangled.substr(begin);
}

bool is_emulator(const CodePlace& place) {
  for (const char* part : {"/emu/include/", "/emu/src/", "/device/ptx.cuh", "/device/platform.cuh", "/include/c++/"})
    if (place.file.find(part) != std::string::npos) return true;
  return false;
}

}  // namespace

std::string function_name(const void* function) {
  const CodePlaces places = code_places(std::span(&function, 1));
  if (!places.empty()) return bare_name(places.begin()->second.back().function);
  std::ostringstream hexadecimal;
  hexadecimal << function;
  return hexadecimal.str();
}

namespace {

std::vector<std::string> lines_of(std::span<void* const> returns) {
  std::vector<const void*> calls;
  // A return address may already belong to the next line.
  for (const void* code : returns) calls.push_back(static_cast<const char*>(code) - 1);
  const CodePlaces places = code_places(calls);
  std::vector<std::string> lines;
  for (const void* call : calls) {
    const auto found = places.find(call);
    if (found == places.end()) continue;
    for (const CodePlace& place : found->second)
      if (!is_emulator(place) && !place.file.starts_with("??"))
        lines.push_back(place.file.substr(place.file.rfind('/') + 1));
  }
  return lines;
}

}  // namespace

std::string source_line(const void* code) {
  void* returns = const_cast<void*>(code);
  const std::vector<std::string> lines = lines_of(std::span(&returns, 1));
  return lines.empty() ? "an unknown line" : lines.front();
}

std::vector<std::string> source_lines() {
  std::array<void*, 24> frames;
  const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
  return lines_of(std::span(frames).first(static_cast<std::size_t>(count)));
}

}  // namespace emu
