#include "test_kit.h"

int main(int argc, char** argv) { return nsrt::test::run_all(argc, argv); }
