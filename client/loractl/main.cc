#include <unistd.h>

#include <iostream>

#include "client/loractl/session.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  return lorad::loractl::RunLoractl(argc, argv, std::cin, std::cout, std::cerr,
                                    isatty(STDOUT_FILENO) != 0);
}
