# libproviso: all layers in one library, and what installs it for other C++ programs.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(proviso)
add_library(Proviso::proviso ALIAS proviso)
foreach(layer dsl model editing runtime audit)
  target_sources(proviso PRIVATE $<TARGET_OBJECTS:proviso_${layer}>)
endforeach()
target_include_directories(proviso PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                          $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/proviso>)
target_link_libraries(proviso PUBLIC torch PRIVATE yaml-cpp OpenSSL::Crypto PkgConfig::RE2 PkgConfig::PCRE2 Threads::Threads
                              $<BUILD_INTERFACE:proviso_options>)
target_compile_features(proviso PUBLIC cxx_std_20)
target_link_options(proviso INTERFACE
  "$<$<STREQUAL:$<TARGET_PROPERTY:proviso,TYPE>,STATIC_LIBRARY>:SHELL:${OpenMP_CXX_FLAGS}>")
if(UNIX AND NOT APPLE)
  # As proviso_options has it.
  target_link_options(proviso INTERFACE "SHELL:-Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state")
endif()
set_target_properties(proviso PROPERTIES LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})

set(package_directory ${CMAKE_INSTALL_LIBDIR}/cmake/Proviso)
install(TARGETS proviso EXPORT ProvisoTargets)
install(EXPORT ProvisoTargets NAMESPACE Proviso:: DESTINATION ${package_directory})
install(DIRECTORY dsl runtime editing audit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/proviso
        FILES_MATCHING PATTERN *.hpp PATTERN *.def)
configure_package_config_file(cmake/ProvisoConfig.cmake.in ProvisoConfig.cmake INSTALL_DESTINATION ${package_directory})
write_basic_package_version_file(ProvisoConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ProvisoConfig.cmake ${PROJECT_BINARY_DIR}/ProvisoConfigVersion.cmake
        DESTINATION ${package_directory})
