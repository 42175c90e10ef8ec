// A small test kit: TEST(name) { ... } registers itself; CHECK and CHECK_THROWS report and go on.
#pragma once

#include <cstring>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace nsrt::test {

struct Case {
  const char* file;
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures_in_case() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* file, const char* name, void (*body)()) { cases().push_back({file, name, body}); }
};

inline void fail(const char* file, int line, const std::string& what) {
  ++failures_in_case();
  std::cout << "    " << file << ":" << line << ": " << what << "\n";
}

template <class E, class F>
void check_throws(const char* file, int line, const char* text, F&& action, std::string_view substring) {
  try {
    action();
  } catch (const E& e) {
    if (std::string_view(e.what()).find(substring) == std::string_view::npos)
      fail(file, line, std::string(text) + " threw \"" + e.what() + "\", without \"" + std::string(substring) + "\"");
    return;
  } catch (const std::exception& e) {
    return fail(file, line, std::string(text) + " threw another type: " + e.what());
  }
  fail(file, line, std::string(text) + " threw nothing");
}

// Runs the cases whose "file/name" contains argv[1]; returns the exit status.
inline int run_all(int argc, char** argv) {
  const std::string filter = argc > 1 ? argv[1] : "";
  int passed = 0;
  int failed = 0;
  for (const Case& c : cases()) {
    const char* slash = std::strrchr(c.file, '/');
    const std::string full = std::string(slash != nullptr ? slash + 1 : c.file) + "/" + c.name;
    if (full.find(filter) == std::string::npos) continue;
    failures_in_case() = 0;
    try {
      c.body();
    } catch (const std::exception& e) {
      fail(c.file, 0, std::string("uncaught: ") + e.what());
    }
    const bool ok = failures_in_case() == 0;
    std::cout << (ok ? "  ok    " : "  FAIL  ") << full << std::endl;
    ++(ok ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  // A filter that fits nothing is a mistake, not a success.
  return failed == 0 && passed != 0 ? 0 : 1;
}

}  // namespace nsrt::test

#define TEST(name)                                                                        \
  static void nsrt_test_##name();                                                         \
  static const ::nsrt::test::Register nsrt_reg_##name(__FILE__, #name, nsrt_test_##name); \
  static void nsrt_test_##name()

#define CHECK(...)                                                            \
  do {                                                                        \
    if (!(__VA_ARGS__)) ::nsrt::test::fail(__FILE__, __LINE__, #__VA_ARGS__); \
  } while (false)

// The expression throws an E whose what() contains the substring.
#define CHECK_THROWS(E, expr, substring) \
  ::nsrt::test::check_throws<E>(__FILE__, __LINE__, #expr, [&] { static_cast<void>(expr); }, substring)
