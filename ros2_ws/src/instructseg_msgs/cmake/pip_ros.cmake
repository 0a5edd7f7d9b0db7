# Lets this package build against the ROS 2 wheels of a Python virtual environment. With a sourced ROS installation,
# whose setup file sets AMENT_PREFIX_PATH, the first part does nothing and the second finds nothing to drop.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c "import sys; print(sys.prefix)"
  OUTPUT_VARIABLE venv_prefix OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

# The wheels unpack into the environment's own prefix, which CMake and the ament index do not search by themselves.
set(wheel_marker "${venv_prefix}/share/rosidl_default_generators/package.xml")
if(EXISTS "${wheel_marker}" AND NOT DEFINED ENV{AMENT_PREFIX_PATH})
  message(STATUS "ROS 2 wheels found in ${venv_prefix}")
  set(ENV{AMENT_PREFIX_PATH} "${venv_prefix}")
  list(PREPEND CMAKE_PREFIX_PATH "${venv_prefix}")
endif()

# The wheels' exported targets still name include directories of the machine they were built on, and CMake refuses a
# target whose include directory is missing. Runs at the end of this directory, when every target has been imported.
function(drop_missing_include_directories)
  get_directory_property(imported IMPORTED_TARGETS)
  foreach(target IN LISTS imported)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing "")
    foreach(directory IN LISTS directories)
      if(directory MATCHES "^\\$<" OR EXISTS "${directory}")  # generator expressions are resolved later
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()
cmake_language(DEFER CALL drop_missing_include_directories)
