#include "machine.h"

namespace emu {
namespace {

// No std::atomic: the hooks ask before they know whether the linker gave them instrumented templates.
Machine* the_machine = nullptr;

}  // namespace

Machine& machine() {
  static Machine& made = *[] {
    auto* fresh = new Machine;
    __atomic_store_n(&the_machine, fresh, __ATOMIC_RELEASE);
    return fresh;
  }();
  return made;
}

Machine* machine_if_made() { return __atomic_load_n(&the_machine, __ATOMIC_ACQUIRE); }

}  // namespace emu
