// The one place where an exception becomes an exit code, and the one file that catches LibTorch's.

#include <c10/util/Exception.h>

#include <new>
#include <ostream>

#include "cli/program.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

namespace {

int report(std::ostream& err, std::string_view message, ExitCode code) {
  err << "proviso: error: " << message << "\n";
  return code;
}

constexpr std::string_view kOutOfMemory =
    "out of memory\n  help: use --dtype bfloat16, shorter or fewer prompts, or a machine with more memory";

bool is_allocation_failure(const c10::Error& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
         std::string_view(error.what_without_backtrace()).find("not enough memory") != std::string_view::npos;
}

}  // namespace

int guarded(const std::function<int()>& action, std::ostream& err) {
  try {
    return action();
  } catch (const model::InputError& error) {
    return report(err, error.what(), kInputAtFault);
  } catch (const model::MachineError& error) {
    return report(err, error.what(), kMachineAtFault);
  } catch (const std::bad_alloc&) {
    return report(err, kOutOfMemory, kMachineAtFault);
  } catch (const c10::Error& error) {
    if (is_allocation_failure(error)) return report(err, kOutOfMemory, kMachineAtFault);
    return report(err, std::string("LibTorch refused: ") + error.what_without_backtrace(), kMachineAtFault);
  } catch (const std::exception& error) {
    return report(err, std::string("a fault of the program itself, please report it: ") + error.what(),
                  kMachineAtFault);
  }
}

}  // namespace proviso::cli
